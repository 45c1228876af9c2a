// The page of `teleport console`: a ticket in the fragment (which no server's log sees) or a login, then noVNC.
import RFB from "/novnc/core/rfb.js";

const login = document.getElementById("login");
const screen = document.getElementById("screen");
const clipboard = document.getElementById("clipboard");
const shared = document.getElementById("shared");
const state = document.getElementById("state");
const socket = (path) => `wss://${location.host}${path}`;

function view(ticket) {
  history.replaceState(null, "", "/"); // used up: a reload asks for the login
  login.hidden = true;
  screen.hidden = false;
  const rfb = new RFB(screen, socket(`/${ticket}/socket`), { shared: true });
  rfb.scaleViewport = true;
  rfb.focusOnClick = true;
  shared.value = "";
  shared.oninput = () => rfb.clipboardPasteFrom(shared.value);
  rfb.addEventListener("clipboard", (event) => {
    shared.value = event.detail.text;
    navigator.clipboard?.writeText(shared.value).catch(() => {}); // where the browser lets us; it can be copied by hand
  });
  rfb.addEventListener("connect", () => {
    state.textContent = "";
    clipboard.hidden = false;
    document.title = rfb._fbName || "Console";
    rfb.focus();
  });
  rfb.addEventListener("disconnect", (event) => {
    screen.hidden = clipboard.hidden = true;
    ask(event.detail.clean ? "disconnected" : "the connection was refused or broke off");
  });
}

function ask(why) {
  state.textContent = why || "";
  login.hidden = false;
}

login.addEventListener("submit", (event) => {
  event.preventDefault();
  const fields = new FormData(login);
  const connection = new WebSocket(socket("/login"));
  connection.onopen = () => connection.send(JSON.stringify({ user: fields.get("user"), password: fields.get("password") }));
  connection.onmessage = (message) => {
    const answer = JSON.parse(message.data);
    login.elements.password.value = "";
    if (answer.ticket) view(answer.ticket);
    else ask(answer.refused);
  };
  connection.onerror = () => ask("the console does not answer");
});

const ticket = location.hash.slice(1);
if (ticket) view(ticket); else ask();
