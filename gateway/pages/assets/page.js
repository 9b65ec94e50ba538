// The pages work without this. With it the usage is live, a payment is waited for, and a key is copied at a press.
"use strict";

const LIVE_MS = 5_000;
const WAIT_MS = 1_000;
const SLOW_MS = 20_000;

const announce = (words) => {
  const place = document.getElementById("announce");
  if (place) place.textContent = words;
};

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const untilSeen = () =>
  document.visibilityState === "visible"
    ? Promise.resolve()
    : new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));

// A sign-in that has ended leads to another page: then there is nothing more to ask.
const ask = async (path) => {
  const answer = await fetch(path, { credentials: "same-origin", redirect: "manual" });
  if (!answer.ok) throw new Error(String(answer.status));
  return answer;
};

const reached = (part) => [...part.querySelectorAll(".full .bar-title")].map((title) => title.textContent);

const keepLive = async (part) => {
  let before = new Set(reached(part));
  for (;;) {
    await pause(LIVE_MS);
    await untilSeen();
    let answer;
    try {
      answer = await ask(part.dataset.live);
    } catch (error) {
      if (error instanceof TypeError) continue; // away for the moment
      return;
    }
    const version = answer.headers.get("Tollway-Version");
    const text = await answer.text();
    if (version !== part.dataset.version) {
      part.dataset.version = version;
      announce("Your plan has changed. Refresh to see it.");
      if (!document.activeElement || document.activeElement === document.body) location.replace(location.pathname);
      continue;
    }
    part.innerHTML = text; // from our own templates, which escape
    localTimes(part);
    const now = reached(part);
    const added = now.filter((title) => !before.has(title));
    if (added.length) announce(`Limit reached: ${added.join(", ")}.`);
    before = new Set(now);
  }
};

const waitForPlan = async (notice) => {
  const began = Date.now();
  for (;;) {
    await pause(WAIT_MS);
    try {
      const state = await (await ask(notice.dataset.wait)).json();
      if (state.live) {
        location.replace(`${location.pathname}?done=paid`);
        return;
      }
    } catch {
      // asked again in a moment
    }
    if (Date.now() - began > SLOW_MS) notice.querySelector("[data-slow]").hidden = false;
  }
};

const localTimes = (within) => {
  for (const time of within.querySelectorAll("time[datetime]")) {
    time.title = `${new Date(time.dateTime).toLocaleString()} where you are`;
  }
};

const copies = (button) => {
  if (!navigator.clipboard) return; // it works over https and on this machine only
  button.hidden = false;
  button.addEventListener("click", async () => {
    const field = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(field.value);
      button.textContent = "Copied";
      announce("The key was copied.");
    } catch {
      field.select();
    }
  });
};

// A second press would only send the same again.
const once = (form) =>
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) return event.preventDefault();
    form.dataset.sent = "1";
    event.submitter?.setAttribute("aria-busy", "true");
  });

// Coming back with the browser's own button shows the page as it was left.
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

// What has just been done is said once, not again at a reload.
if (new URLSearchParams(location.search).has("done") && !document.querySelector("[data-wait]")) {
  history.replaceState(null, "", location.pathname + location.hash);
}

localTimes(document);
document.querySelector("[data-focus]")?.focus();
document.querySelectorAll("[data-copy]").forEach(copies);
document.querySelectorAll("form[method=post]").forEach(once);
const live = document.querySelector("[data-live]");
if (live) keepLive(live);
const waiting = document.querySelector("[data-wait]");
if (waiting) waitForPlan(waiting);
