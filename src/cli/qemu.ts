// `minorfault qemu …`: machines of an unmodified QEMU, one verb a file.

import type { Command } from "@commander-js/extra-typings";
import { registerCapture } from "./qemu/capture.ts";
import { registerMigrate } from "./qemu/migrate.ts";
import { registerRestore } from "./qemu/restore.ts";
import { registerResume } from "./qemu/resume.ts";

export function registerQemu(program: Command): void {
  const qemu = program
    .command("qemu")
    .description("captures machines of an unmodified QEMU, and starts them lazily from their images")
    .addHelpText("after", "\ndocs/qemu.md goes through it line by line.");
  for (const register of [registerCapture, registerRestore, registerResume, registerMigrate])
    register(qemu as unknown as Command);
}
