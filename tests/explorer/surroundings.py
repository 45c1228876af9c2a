"""What happens to both agents: QEMU's migration, messages that are lost, and faults."""

from tests.explorer.world import Step, Steps, World


def qemu_steps(w: World, *, shared: bool) -> Steps:
    """What the two QEMUs may do next by themselves."""
    carried = w.link and w.sa is not None and w.ta is not None and w.sq != "dead" and w.tq == "wait"
    # a source that QEMU stopped goes on by itself when the migration fails; one that we stopped (shared) does not
    resumed = "run" if w.sq == "paused" and not shared else w.sq
    broken = w._replace(mig="failed", sq=resumed, tq="failed" if w.tq == "wait" else w.tq)
    if w.mig == "active":
        if carried:
            yield "QEMU reaches pre-switchover", w._replace(mig="preswitch", sq="paused", stopped=True)
        elif w.sq != "dead":
            yield "QEMU's migration fails", broken
    elif w.mig == "preswitch" and not carried and w.sq != "dead":
        yield "QEMU's migration fails", broken
    elif w.mig == "device":
        if carried:
            yield "target QEMU loads all", w._replace(tq="loaded")
        elif w.sq != "dead" and w.tq in ("loaded", "active"):
            yield "source QEMU completes", w._replace(mig="completed")
            if not (w.link and w.sa is not None and w.ta is not None):
                yield "the last message is lost, source QEMU fails", broken
        elif w.sq != "dead":
            yield "QEMU's migration fails", broken
    if w.mig in ("active", "preswitch", "device") and w.sq == "dead" and w.tq == "wait":
        yield "target QEMU loses the stream", w._replace(tq="failed")


def lost_messages(w: World) -> Steps:
    """Messages are late at any time, and lost only once the link is cut."""
    if not w.link:
        for message in w.net:
            yield f"{message} is lost", w._replace(net=w.net - {message})


def hits(w: World) -> Steps:
    """Every fault that may strike now."""

    def hit(fault: str, **changes: object) -> Step:
        return fault, w._replace(faults=(*w.faults, fault), **changes)

    if w.sa is not None:
        yield hit("S agent killed", sa=None, sdo=())
        if w.sq != "dead":
            yield hit("S agent and QEMU killed", sa=None, sdo=(), sq="dead")
    if w.ta is not None:
        yield hit("T agent killed", ta=None, tdo=())
        if w.tq != "dead":
            yield hit("T agent and QEMU killed", ta=None, tdo=(), tq="dead")
    if w.sq != "dead":
        yield hit("S QEMU killed", sq="dead")
    if w.tq != "dead":
        yield hit("T QEMU killed", tq="dead")
    if not w.sgone:
        yield hit("S host gone", sgone=True, sa=None, sdo=(), sq="dead")
    if not w.tgone:
        yield hit("T host gone", tgone=True, ta=None, tdo=(), tq="dead")
    if w.link:
        yield hit("link cut", link=False)
    if w.sdisk:
        yield hit("storage lost at S", sdisk=False)
    if w.tdisk:
        yield hit("storage lost at T", tdisk=False)
