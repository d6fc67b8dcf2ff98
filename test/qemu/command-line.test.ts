// What is added to a QEMU's command line, and how another machine is told from the saved one. Pure: no QEMU needed.

import assert from "node:assert/strict";
import { test } from "node:test";
import { parseAddress } from "../../src/guest/qemu/address.ts";
import { completeCommandLine } from "../../src/guest/qemu/command-line.ts";
import { checkDestination, type Destination, parseBlocks } from "../../src/guest/qemu/destination.ts";
import { type SavedMachine, savedMachine } from "../../src/guest/qemu/index.ts";

const MIB = 2 ** 20;
const saved: SavedMachine = savedMachine({
  machine: "pc-i440fx-7.2",
  qemu: "7.2.22 (Debian)",
  capabilities: [],
  sectionId: 2,
  blocks: [
    { name: "pc.ram", byteLength: 128 * MIB, pageSize: 4096, region: "pc.ram" },
    { name: "/rom@etc/acpi/tables", byteLength: 131072, pageSize: 4096, region: "tables" },
  ],
  devices: [],
  saved: "running",
});
const OURS = [
  "-chardev",
  "socket,id=minorfault,fd=3,server=on,wait=off",
  "-mon",
  "chardev=minorfault,mode=control",
];

test("completeCommandLine() adds what is missing, and says it", () => {
  const { arguments: line, added } = completeCommandLine(["-accel", "kvm"], saved, 3);
  const wanted = ["-machine", "pc-i440fx-7.2", "-m", "128M", "-incoming", "defer", ...OURS];
  assert.deepEqual(line, ["-accel", "kvm", ...wanted]);
  assert.deepEqual(added.slice(0, 3), ["-machine pc-i440fx-7.2", "-m 128M", "-incoming defer"]);
});

test("completeCommandLine() leaves alone what is there, and pins an alias to its version", () => {
  const given = ["--machine", "pc-i440fx-7.2,usb=off", "-m", "1G", "-incoming", "defer"];
  assert.deepEqual(completeCommandLine(given, saved, 3).arguments, [...given, ...OURS]);
  const { arguments: line, added } = completeCommandLine(["-M", "pc,accel=tcg", "-m", "128M"], saved, 3);
  assert.deepEqual(line.slice(0, 4), ["-M", "pc-i440fx-7.2,accel=tcg", "-m", "128M"]);
  assert.equal(added[0], "-machine pc-i440fx-7.2,accel=tcg (was pc)");
});

test("completeCommandLine() refuses another machine, and a QEMU that listens elsewhere", () => {
  assert.throws(() => completeCommandLine(["-M", "q35"], saved, 3), /saved as pc-i440fx-7\.2.*says q35/);
  assert.throws(
    () => completeCommandLine(["-incoming", "tcp::4444"], saved, 3),
    /told to listen at tcp::4444/,
  );
});

const INFO = `              Block Name    PSize              Offset               Used              Total
                  pc.ram    4 KiB  0x0000000000000000 0x0000000008000000 0x0000000008000000
    /rom@etc/acpi/tables    4 KiB  0x0000000008080000 0x0000000000020000 0x0000000000200000
`;

function destination(changes: Partial<Destination> = {}): Destination {
  return { qemu: "7.2.22 (Debian)", machine: "pc-i440fx-7.2", blocks: parseBlocks(INFO), ...changes };
}

test("parseBlocks() reads QEMU's list of RAM", () => {
  assert.deepEqual(parseBlocks(INFO.replace("4 KiB  0x0000000000000000", "2 MiB  0x0000000000000000")), [
    { name: "pc.ram", pageSize: 2 * MIB, byteLength: 128 * MIB, byteLengthMax: 128 * MIB },
    { name: "/rom@etc/acpi/tables", pageSize: 4096, byteLength: 131072, byteLengthMax: 2 * MIB },
  ]);
});

test("checkDestination() takes the same machine, a newer QEMU, and a table that has grown", () => {
  const sizes = checkDestination(saved, destination());
  assert.deepEqual([...sizes.values()], [4096, 4096]);
  checkDestination(saved, destination({ qemu: "9.1.0" }));
  checkDestination(saved, destination({ machine: undefined }));
  const grown = INFO.replace("0x0000000000020000 0x", "0x0000000000010000 0x");
  checkDestination(saved, destination({ blocks: parseBlocks(grown) }));
});

test("checkDestination() refuses other machines, older QEMUs, other memory", () => {
  const refused = (changes: Partial<Destination>, reason: RegExp) =>
    assert.throws(() => checkDestination(saved, destination(changes)), reason);
  refused({ machine: "pc-q35-7.2" }, /saved as pc-i440fx-7\.2, this QEMU is pc-q35-7\.2/);
  refused({ qemu: "7.1.9" }, /saved by QEMU 7\.2\.22 \(Debian\), this is the older 7\.1\.9/);
  refused({ qemu: "6.3.0" }, /older 6\.3\.0/);
  refused({ blocks: parseBlocks(INFO).slice(0, 1) }, /tables, this QEMU has none/);
  const twice = parseBlocks(INFO.replaceAll("0x0000000008000000", "0x0000000010000000"));
  refused({ blocks: twice }, /pc\.ram has 134217728 bytes, that of this QEMU 268435456/);
  const more = { name: "vga.vram", pageSize: 4096, byteLength: 4096, byteLengthMax: 4096 };
  refused({ blocks: [...parseBlocks(INFO), more] }, /vga\.vram more/);
});

test("parseAddress() takes what QEMU's -incoming takes", () => {
  assert.deepEqual(parseAddress("unix:/run/a:b"), { kind: "unix", path: "/run/a:b" });
  assert.deepEqual(parseAddress("tcp:[::1]:4444"), { kind: "tcp", host: "::1", port: 4444 });
  assert.deepEqual(parseAddress("tcp::80"), { kind: "tcp", host: "localhost", port: 80 });
  for (const bad of ["/run/socket", "tcp:host", "tcp:host:0", "tcp:host:70000", "exec:cat"]) {
    assert.throws(() => parseAddress(bad), /is not unix:PATH or tcp:HOST:PORT/);
  }
});
