// The server's sockets: which there are, where they lie, and who may come to them. Each is of mode 0600, in a folder of
// mode 0700.
//
//   <folder>/control.sock         the control API
//           /takeover.sock        another server of the same user, which takes this one's place
//           /images/<name>.sock   guests of an image
//           /guests/<id>.sock     one guest that was announced

import { randomBytes } from "node:crypto";
import { chmodSync, chownSync, existsSync, lstatSync, statSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { MinorfaultError } from "../base/errors.ts";
import { connect, listen, local } from "../linux/index.ts";
import { makeFolder } from "../source/folders.ts";
import type { ExpectedGuest, Ticket } from "./guests.ts";
import { closeAll, type Ledger } from "./ledger.ts";
import type { Entry } from "./link.ts";
import { CONTROL_ID, type Door } from "./texts.ts";

const BACKLOG = 128;
const NAME = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$/;

export interface Listener<Kind extends Door = Door> {
  readonly entry: Entry;
  readonly door: Kind;
}

/** @throws ERR_BAD_ARGUMENT */
export function checkName(name: string): void {
  if (NAME.test(name)) return;
  throw new MinorfaultError(
    "ERR_BAD_ARGUMENT",
    `An image's name has 1 to 64 letters, digits, . _ or -: ${name}`,
  );
}

/** Makes the folder, or checks that nobody else can get in. */
export function prepareFolder(folder: string): void {
  makeFolder(folder, 0o700);
  const { uid, mode } = statSync(folder);
  if (uid !== process.getuid?.()) {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", `The folder ${folder} belongs to another user, uid ${uid}`);
  }
  if ((mode & 0o077) !== 0) {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", `The folder ${folder} is open to others`, {
      hint: `chmod 700 ${folder}: whoever can connect can have an image's pages`,
    });
  }
  for (const sub of ["images", "guests"]) makeFolder(join(folder, sub), 0o700);
}

/** Whether a server answers there. */
export function isServed(folder: string): boolean {
  const path = takeoverPath(folder);
  if (!existsSync(path)) return false;
  try {
    closeAll([connect(local, path)]);
    return true;
  } catch {
    return false;
  }
}

/** Where guests of an image connect. */
export function imagePath(folder: string, image: string): string {
  return join(folder, "images", `${image}.sock`);
}

export function takeoverPath(folder: string): string {
  return join(folder, "takeover.sock");
}

export function takeoverListener(folder: string): Listener {
  const path = takeoverPath(folder);
  return made("takeover", { door: "takeover", path }, bind(path));
}

/** `descriptor`: a socket that listens already. */
export function controlListener(folder: string, descriptor?: number): Listener {
  const path = join(folder, "control.sock");
  return made(CONTROL_ID, { door: "control", path }, descriptor ?? bind(path), "kept");
}

export function imageListener(folder: string, image: string, descriptor?: number): Listener {
  checkName(image);
  const path = imagePath(folder, image);
  return made(`image:${image}`, { door: "image", image, path }, descriptor ?? bind(path));
}

export function ticketListener(
  folder: string,
  ticket: Ticket,
  until: number,
): Listener<Extract<Door, { door: "ticket" }>> {
  const id = `expected-${randomBytes(6).toString("hex")}`;
  const socket = ticket.path ?? join(folder, "guests", `${id}.sock`);
  const fd = bind(socket);
  const { uid = -1, gid = -1 } = ticket;
  if (uid >= 0 || gid >= 0) chownSync(socket, uid, gid);
  const expected: ExpectedGuest = { ...ticket, id, socket, until };
  return made(id, { door: "ticket", ticket: expected }, fd);
}

/** The doors that the ledger's sockets stand for. */
export function openDoors(ledger: Ledger): readonly { readonly id: string; readonly door: Door }[] {
  return ledger.of("listener").map(({ id, text }) => ({ id, door: JSON.parse(text) as Door }));
}

/** Its file; the descriptors are the ledger's. */
export function closeListener(door: Door): void {
  const path = door.door === "ticket" ? door.ticket.socket : door.path;
  try {
    unlinkSync(path);
  } catch {
    // Given by whoever activates us, or gone already.
  }
}

function made<Kind extends Door>(
  id: string,
  door: Kind,
  fd: number,
  type: "listener" | "kept" = "listener",
): Listener<Kind> {
  return { entry: { id, type, text: JSON.stringify(door), descriptors: [fd] }, door };
}

/** What an earlier server has left there is no reason not to; anything but a socket is. */
function bind(path: string): number {
  if (existsSync(path) && lstatSync(path).isSocket()) unlinkSync(path);
  const fd = listen(local, path, BACKLOG);
  chmodSync(path, 0o600);
  return fd;
}
