// The live page: follows the server, shows all its guests, and one of them in full.
//
// Opened as http://127.0.0.1:PORT/#token=…: what stands behind # never leaves the browser by itself. The token is kept for
// this tab and taken out of the address, which then names the guest that is shown.

import type { Frame } from "../../control/frame.ts";
import { factsOf, figuresOf, happeningsOf } from "../figures.ts";
import { bytesText, countText, durationText, escaped } from "../words.ts";
import { Connection } from "./connection.ts";
import { GuestList, nameOf } from "./guest-list.ts";
import { element, setHtml, setParts, setText } from "./parts.ts";

const TOKEN_KEY = "minorfault-token";
const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
const EVERY_MS = isCalm ? 2000 : 500;

let chosen: string | undefined;
let isPaused = false;
let frame: Frame | undefined;
let before: Frame | undefined;

const connection = new Connection(takeToken(), {
  onFrame(next) {
    if (isPaused) return;
    before = frame;
    frame = next;
    draw(next);
  },
  onLost(why, isRefused) {
    setState("lost", isRefused ? "No access" : "No connection");
    say(why);
    if (isRefused) {
      setText(element("nothing"), why);
      element("nothing").hidden = false;
    }
  },
});
const list = new GuestList((id) => choose(id, true));

element("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  element("pause").setAttribute("aria-pressed", String(isPaused));
  if (isPaused) connection.stop();
  else connection.watch(chosen, EVERY_MS);
  if (isPaused) setState("waiting", "Paused");
});
element("ended").addEventListener("click", (event) => {
  const { id } = (event.target as HTMLElement).dataset;
  if (id !== undefined) choose(id, true);
});
addEventListener("hashchange", () => choose(guestInAddress(), false));

chosen = guestInAddress();
connection.watch(chosen, EVERY_MS);

function choose(id: string | undefined, isAsked: boolean): void {
  if (id === chosen) return;
  chosen = id;
  if (isAsked && id !== undefined) history.replaceState(null, "", `#guest=${encodeURIComponent(id)}`);
  if (frame !== undefined) list.show(frame.guests, chosen);
  connection.watch(chosen, EVERY_MS);
}

function draw(now: Frame): void {
  const { health, guests, ended } = now;
  setState(health.ready ? "ready" : "waiting", health.ready ? "Ready" : (health.why ?? "Not ready"));
  const spare = health.sparePid === undefined ? "no spare" : `spare ${health.sparePid}`;
  setText(element("processes"), `pager ${health.pid}, keeper ${health.keeperPid}, ${spare}`);
  drawTiles(now);
  if (chosen === undefined && guests[0] !== undefined) choose(guests[0].id, false);
  list.show(guests, chosen);
  setText(element("ended-summary"), `Ended lately (${ended.length})`);
  const items = ended.map(({ id, name, image, reason }) => {
    const label = escaped(nameOf({ id, ...(name === undefined ? {} : { name }) }));
    return `<li><button type="button" data-id="${escaped(id)}">${label}</button> ${escaped(image)}: ${escaped(reason)}</li>`;
  });
  setHtml(element("ended"), items.join(""));
  drawGuest(now);
}

function drawTiles({ at, guests, health }: Frame): void {
  const sum = (of: (guest: Frame["guests"][number]) => number) =>
    guests.reduce((all, guest) => all + of(guest), 0);
  const old = new Map(before?.guests.map((guest) => [guest.id, guest]) ?? []);
  const seconds = before === undefined ? Number.POSITIVE_INFINITY : (at - before.at) / 1000;
  const rate = (of: (guest: Frame["guests"][number]) => number) => {
    const more = guests.map((guest) => {
      const was = old.get(guest.id);
      return was === undefined ? 0 : Math.max(0, of(guest) - of(was));
    });
    return more.reduce((all, each) => all + each, 0) / seconds;
  };
  const refused = Object.values(health.counters.refused).reduce((all, count) => all + count, 0);
  const tiles: readonly (readonly [string, string])[] = [
    ["Guests", countText(guests.length)],
    ["Faults a second", countText(rate(({ faults }) => faults))],
    ["Installed a second", bytesText(rate(({ bytesInstalled }) => bytesInstalled))],
    ["Faults waiting", countText(sum(({ waiting }) => waiting))],
    ["Refused", countText(refused)],
    ["Takeovers", countText(health.counters.takeovers)],
    ["Up for", durationText(at - Date.parse(health.serverSince))],
  ];
  setHtml(
    element("tiles"),
    tiles.map(([name, text]) => `<div><dt>${name}</dt><dd>${escaped(text)}</dd></div>`).join(""),
  );
}

function drawGuest({ history: of, guests }: Frame): void {
  const target = element("guest");
  if (of === undefined) {
    setText(
      element("guest-heading"),
      guests.length === 0 ? "No guest chosen" : "This guest is not known any more",
    );
    setParts(target, "none", "");
    return;
  }
  setText(element("guest-heading"), `${of.name ?? of.id}${of.ended === undefined ? "" : " (ended)"}`);
  setParts(
    target,
    of.id,
    `<dl class="facts" data-part="facts">${factsOf(of)}</dl><div class="figures">${figuresOf(of)}` +
      '<section class="figure" aria-label="What happened"><h3>What happened</h3>' +
      `<ul class="happenings" data-part="happenings">${happeningsOf(of)}</ul></section></div>`,
  );
  if (of.ended !== undefined) say(`${of.name ?? of.id} has ended: ${of.ended.reason}`);
}

function setState(state: "ready" | "waiting" | "lost", text: string): void {
  const pill = element("state");
  if (pill.dataset.state !== state) say(text);
  pill.dataset.state = state;
  setText(element("state-text"), text);
}

/** For those who hear the page: what changes now and then, not what changes all the time. */
function say(text: string): void {
  setText(element("said"), text);
}

function guestInAddress(): string | undefined {
  return new URLSearchParams(location.hash.slice(1)).get("guest") ?? undefined;
}

function takeToken(): string {
  const given = new URLSearchParams(location.hash.slice(1));
  const token = given.get("token");
  if (token !== null) {
    sessionStorage.setItem(TOKEN_KEY, token);
    given.delete("token");
    window.history.replaceState(null, "", given.size === 0 ? location.pathname : `#${given}`);
  }
  return sessionStorage.getItem(TOKEN_KEY) ?? "";
}
