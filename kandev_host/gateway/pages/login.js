// Exchanges the ticket in the fragment, or a name and its password, for the token of a session. The fragment reaches no server, log or Referer, and
// is gone from the address before anything else happens; the token stays in this tab, and goes to this origin alone.
"use strict";

const KEY = "kandev.token";
const state = document.getElementById("state");
const leave = document.getElementById("leave");
const enter = document.getElementById("enter");
const byName = !enter.hidden; // the host shows the form where it knows names and passwords

function show(text, loggedIn) {
  state.textContent = text;
  leave.hidden = !loggedIn;
  enter.hidden = loggedIn || !byName;
}

async function exchange(shown) {
  const answer = await fetch("/login", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(shown),
    credentials: "omit",
    cache: "no-store",
  });
  const reply = await answer.json();
  if (!answer.ok) throw new Error(reply.message);
  sessionStorage.setItem(KEY, reply.token);
  return reply;
}

function ask(action, payload) {
  return new Promise((resolve, reject) => {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/ws`, ["kandev.v1", `bearer.${sessionStorage.getItem(KEY)}`]);
    socket.onopen = () => socket.send(JSON.stringify({ id: "1", type: "request", action, payload }));
    socket.onerror = () => reject(new Error("The session has ended. Log in again"));
    socket.onmessage = (event) => {
      const message = JSON.parse(event.data);
      if (message.type === "error") reject(new Error(message.payload.message));
      else resolve(message.payload);
      socket.close();
    };
  });
}

function welcome(reply) {
  const until = new Date(reply.expires_at).toLocaleString();
  show(`You are logged in as ${reply.principal.name} until ${until}.`, true);
}

leave.onclick = async () => {
  try {
    await ask("auth.logout", {});
    show("You are logged out.", false);
  } catch (error) {
    show(error.message, false);
  }
  sessionStorage.removeItem(KEY);
};

enter.onsubmit = async (event) => {
  event.preventDefault();
  const { name, password } = Object.fromEntries(new FormData(enter));
  enter.reset();
  try {
    welcome(await exchange({ name, password }));
  } catch (error) {
    show(error.message, false);
  }
};

async function main() {
  const ticket = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
  try {
    if (ticket) welcome(await exchange({ ticket }));
    else if (sessionStorage.getItem(KEY)) welcome(await ask("auth.login", { token: sessionStorage.getItem(KEY) }));
    else show(byName ? "" : "To log in, ask for a link where the host runs: kandev-host link", false);
  } catch (error) {
    show(error.message, false);
  }
}

main();
