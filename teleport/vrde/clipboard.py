"""The clipboard of a guest and all its viewers, text only, without I/O.

Whoever copied last has it. A viewer's text stays with the viewer until somebody in the guest pastes; the guest's is fetched at once,
so that it outlives a teleport. What one viewer copies goes to the guest alone, never to the other viewers.

Which way text may go is asked at every step, so that a change counts at once; what was offered before is withdrawn, or offered anew.
"""

from collections.abc import Callable
from typing import Protocol

from teleport.vrde import vdagent
from teleport.vrde.vdagent import Dialect, Kind, Message

MOST_ASKED = 8  # pastes in the guest that wait for a viewer's text


class ViewerClipboard(Protocol):
    """One viewer's. None of these may block."""

    def offer(self, text: str | None) -> None:
        """The guest has this text now; None: nothing any more."""

    def ask(self) -> None:
        """Somebody in the guest pastes what this viewer has copied: `Clipboard.pasted` is the answer."""


class Clipboard:
    """One guest's. `to_guest` writes to its agent, where one is connected."""

    def __init__(self, to_guest: Callable[[bytes], None], *, inwards: bool, outwards: bool) -> None:
        self._to_guest = to_guest
        self._inwards, self._outwards = inwards, outwards
        self._viewers: list[ViewerClipboard] = []
        self._dialect: Dialect | None = None
        self._owner: ViewerClipboard | None = None
        self._asked = 0
        self._guest_has_text = False  # and has been asked for it, where that is allowed
        self._text: str | None = None  # the guest's

    def allow(self, *, inwards: bool, outwards: bool) -> None:
        """Which way text may go from now on: from viewers to the guest, and back."""
        was_inwards, was_outwards = self._inwards, self._outwards
        self._inwards, self._outwards = inwards, outwards
        if inwards != was_inwards and self._owner:
            self._answer_all(None)
            if self._dialect:
                self._to_guest(self._dialect.grab() if inwards else self._dialect.release())
        if was_outwards and not outwards:
            self._offer(None)
        elif outwards and not was_outwards:
            self._request()

    # ------------------------------------------------------------------ viewers
    def joined(self, viewer: ViewerClipboard) -> None:
        """A viewer is there, and may copy and paste."""
        self._viewers.append(viewer)
        if self._text is not None:
            viewer.offer(self._text)

    def left(self, viewer: ViewerClipboard) -> None:
        """It has gone, and what it had copied with it."""
        if viewer in self._viewers:
            self._viewers.remove(viewer)
        self.copied(viewer, has_text=False)

    def copied(self, viewer: ViewerClipboard, *, has_text: bool) -> None:
        """The viewer's own clipboard has another content, with or without a text."""
        if has_text:
            self._answer_all(None)
            self._owner = viewer
            if self._inwards:
                self._guest_has_text = False
                self._offer(None, but=viewer)
                if self._dialect:
                    self._to_guest(self._dialect.grab())
        elif self._owner is viewer:
            self._answer_all(None)
            self._owner = None
            if self._inwards and self._dialect:
                self._to_guest(self._dialect.release())

    def waits_for(self, viewer: ViewerClipboard) -> bool:
        """Whether the guest waits for what this viewer has copied."""
        return self._owner is viewer and bool(self._asked)

    def pasted(self, viewer: ViewerClipboard, text: str | None) -> None:
        """The answer to `ask`: the text with line feeds, or None."""
        if self.waits_for(viewer):
            too_long = text is not None and len(text.encode("utf-8", "replace")) > vdagent.MOST_TEXT_BYTES
            self._asked -= 1
            self._answer(None if too_long else text)

    def _offer(self, text: str | None, *, but: ViewerClipboard | None = None) -> None:
        if text is not None or self._text is not None:
            self._text = text
            for each in self._viewers:
                if each is not but:
                    each.offer(text)

    # ------------------------------------------------------------------ the guest
    def connected(self) -> None:
        """The way to the guest's agent is a new one: nothing is known of it."""
        self._dialect = None
        self._asked = 0
        self._guest_has_text = False
        self._to_guest(vdagent.announcement(please_answer=True))

    def lost(self) -> None:
        """There is no way to it any more. What it had copied can still be pasted."""
        self._dialect = None
        self._asked = 0

    def received(self, message: Message) -> None:
        """Takes one message of the guest's agent. Raises AgentError."""
        if message.kind is Kind.CAPABILITIES:
            self._dialect, asks = Dialect.of(message.body)
            self._to_guest((vdagent.announcement(please_answer=False) if asks else b"") + self._dialect.limit())
            if self._owner and self._inwards:
                self._to_guest(self._dialect.grab())
            return
        if self._dialect is None or (said := self._dialect.read(message)) is None:
            return
        if said.kind is Kind.GRAB:
            self._guest_copied(has_text=said.format == vdagent.TEXT)
        elif said.kind is Kind.REQUEST:
            self._guest_pastes(said.format)
        elif said.kind is Kind.CLIPBOARD and self._guest_has_text and self._outwards and said.format == vdagent.TEXT:
            text = vdagent.text_of(said.data)
            if text is not None:
                self._offer(text)

    def _guest_copied(self, *, has_text: bool) -> None:
        self._owner = None
        self._asked = 0
        self._guest_has_text = has_text
        if has_text:
            self._request()
        else:
            self._offer(None)

    def _request(self) -> None:
        if self._guest_has_text and self._outwards and self._dialect:
            self._to_guest(self._dialect.request())

    def _guest_pastes(self, wanted: int) -> None:
        if self._owner and self._inwards and wanted == vdagent.TEXT and self._asked < MOST_ASKED:
            self._asked += 1
            self._owner.ask()
        else:
            self._answer(None)

    def _answer(self, text: str | None) -> None:
        if self._dialect:
            self._to_guest(self._dialect.clipboard(text if self._inwards else None))

    def _answer_all(self, text: str | None) -> None:
        while self._asked:
            self._asked -= 1
            self._answer(text)
