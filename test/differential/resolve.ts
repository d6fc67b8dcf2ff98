// A step in the present state of the systems, as the act that it comes to.

import { blocking, close, duplicate, handshake, open, poll, read } from "./descriptor-acts.ts";
import { fill, register, unregister, wake, writeprotect } from "./fill-acts.ts";
import {
  access,
  madvise,
  mincore,
  mlock,
  mmap,
  mprotect,
  mremap,
  munmap,
  object,
  scan,
  vm,
} from "./memory-acts.ts";
import { fork, kill, signal } from "./process-acts.ts";
import type { Resolved, Scene } from "./scene.ts";
import type { Step } from "./steps.ts";

export function resolve(scene: Scene, step: Step): Resolved {
  switch (step.kind) {
    case "open":
      return open(scene, step);
    case "handshake":
      return handshake(scene, step);
    case "read":
      return read(scene, step);
    case "poll":
      return poll(scene, step);
    case "close":
      return close(scene, step);
    case "duplicate":
      return duplicate(scene, step);
    case "blocking":
      return blocking(scene, step);
    case "register":
      return register(scene, step);
    case "unregister":
      return unregister(scene, step);
    case "wake":
      return wake(scene, step);
    case "writeprotect":
      return writeprotect(scene, step);
    case "fill":
      return fill(scene, step);
    case "access":
      return access(scene, step);
    case "mmap":
      return mmap(scene, step);
    case "munmap":
      return munmap(scene, step);
    case "mprotect":
      return mprotect(scene, step);
    case "madvise":
      return madvise(scene, step);
    case "mremap":
      return mremap(scene, step);
    case "fork":
      return fork(scene, step);
    case "kill":
      return kill(scene, step);
    case "object":
      return object(scene, step);
    case "signal":
      return signal(scene, step);
    case "mlock":
    case "munlock":
      return mlock(scene, step);
    case "vm":
      return vm(scene, step);
    case "mincore":
      return mincore(scene, step);
    case "scan":
      return scan(scene, step);
    default:
      return step satisfies never;
  }
}
