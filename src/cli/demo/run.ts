// The demo itself: choose a guest, build the image, restore it three ways, and judge.

import { availableParallelism, cpus, release, totalmem, type } from "node:os";
import { PAGE_SIZE } from "../../abi/memory.ts";
import { MinorfaultError } from "../../base/errors.ts";
import { Random } from "../../base/random.ts";
import { type DemoHost, GUEST_KINDS, type GuestKind, type PagedGuest, type Refusal } from "./guest.ts";
import { buildImage, type Image } from "./image.ts";
import { KernelHost } from "./kernel-host.ts";
import { type RestorePlan, type RestoreResult, type RestoreStep, restore, type Tour } from "./restore.ts";
import { SoftwareHost } from "./software-host.ts";

/** The part of all pages that is touched at random after the first byte. */
const SAMPLE_SHARE = 0.02;

const REHEARSED_PAGES = 32;

export interface DemoOptions {
  readonly byteLength: number;
  readonly seed: number;
  readonly guest: GuestKind | "auto";
  readonly faultAroundPages: number;
}

export interface MachineFacts {
  readonly cpu: string;
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly system: string;
  readonly node: string;
}

export interface DemoResult {
  readonly options: DemoOptions;
  readonly machine: MachineFacts;
  readonly guest: {
    readonly kind: GuestKind;
    readonly guestText: string;
    readonly pagerText: string;
    /** Better kinds that could not be had, with the reason. */
    readonly refusals: readonly Refusal[];
  };
  readonly image: Image;
  readonly imageMs: number;
  readonly samplePages: number;
  readonly restores: readonly RestoreResult[];
  /** Every page of every restore had the right SHA-256, and the guests themselves read the right words. */
  readonly right: boolean;
  readonly totalMs: number;
}

export type DemoStep = RestoreStep | "build" | "warm up";
export type Stage = "image" | RestorePlan["name"];

/** Told how far the demo is. */
export interface DemoObserver {
  onHost(host: DemoHost, refusals: readonly Refusal[]): void;
  onGuest(guest: PagedGuest, pageCount: number): void;
  onStep(stage: Stage, step: DemoStep, pageCount: number): void;
  onProgress(pagesDone: number): void;
  onImage(image: Image, ms: number): void;
  onRestore(result: RestoreResult): void;
}

export async function runDemo(
  options: DemoOptions,
  observer: DemoObserver,
  signal: AbortSignal,
): Promise<DemoResult> {
  const began = performance.now();
  const { host, refusals } = chooseHost(options.guest, options.byteLength);
  try {
    observer.onHost(host, refusals);
    observer.onStep("image", "build", options.byteLength / PAGE_SIZE);
    const image = await buildImage({
      byteLength: options.byteLength,
      seed: options.seed,
      write: (offset, bytes) => host.write(offset, bytes),
      onProgress: (done) => observer.onProgress(done),
      signal,
    });
    observer.onStep("image", "warm up", image.pageCount);
    await host.warmUp(signal, (done) => observer.onProgress(done));
    const tour = planTour(image.pageCount, options.seed);
    await rehearse(host, image, tour, options.faultAroundPages, signal);
    const imageMs = performance.now() - began;
    observer.onImage(image, imageMs);

    const restores: RestoreResult[] = [];
    for (const plan of plans(options.faultAroundPages)) {
      const watcher = {
        onGuest: (guest: PagedGuest) => observer.onGuest(guest, image.pageCount),
        onStep: (step: RestoreStep, pageCount: number) => observer.onStep(plan.name, step, pageCount),
        onProgress: (done: number) => observer.onProgress(done),
      };
      const result = await restore(plan, tour, image, host, watcher, signal);
      observer.onRestore(result);
      restores.push(result);
    }
    const { kind, guestText, pagerText } = host;
    return {
      options,
      machine: machineFacts(),
      guest: { kind, guestText, pagerText, refusals },
      image,
      imageMs,
      samplePages: tour.sample.length,
      restores,
      right: restores.every(({ wrongPages, guestReadRight }) => wrongPages === 0 && guestReadRight),
      totalMs: performance.now() - began,
    };
  } finally {
    host.close();
  }
}

/** Lets a guest touch a few pages, so that no restore is the one that has to compile the code and place the pager. */
async function rehearse(
  host: DemoHost,
  image: Image,
  { sample }: Tour,
  faultAroundPages: number,
  signal: AbortSignal,
): Promise<void> {
  const guest = await host.open(image, faultAroundPages);
  try {
    for (const page of sample.subarray(0, REHEARSED_PAGES)) await guest.walk(Uint32Array.of(page), signal);
  } finally {
    await guest.close();
  }
}

function plans(faultAroundPages: number): RestorePlan[] {
  return [
    { name: "eager", eager: true, faultAroundPages: 1 },
    { name: "page-by-page", eager: false, faultAroundPages: 1 },
    { name: "fault-around", eager: false, faultAroundPages },
  ];
}

/** The same pages in the same order for every restore. Page 0, the first byte, is not among the random ones. */
function planTour(pageCount: number, seed: number): Tour {
  const random = new Random(seed ^ 0x7041_6765);
  const count = Math.max(1, Math.round(pageCount * SAMPLE_SHARE));
  return {
    sample: random.sample(count, pageCount - 1).map((page) => page + 1),
    all: Uint32Array.from({ length: pageCount }, (_, page) => page),
  };
}

/** The kind of guest that was asked for, or the best that this machine can have. */
function chooseHost(
  asked: DemoOptions["guest"],
  byteLength: number,
): { host: DemoHost; refusals: Refusal[] } {
  if (asked !== "auto") return { host: openHost(asked, byteLength), refusals: [] };
  const refusals: Refusal[] = [];
  for (const kind of GUEST_KINDS) {
    try {
      return { host: openHost(kind, byteLength), refusals };
    } catch (error) {
      // A mistake of ours is not a property of the machine.
      if (!(error instanceof MinorfaultError) || error.kind === "bug") throw error;
      refusals.push({ kind, reason: error.message });
    }
  }
  throw new MinorfaultError(
    "ERR_UNSUPPORTED_HOST",
    `No kind of guest works here: ${refusals.map(({ reason }) => reason).join("; ")}`,
  );
}

function openHost(kind: GuestKind, byteLength: number): DemoHost {
  return kind === "software" ? new SoftwareHost(byteLength) : new KernelHost(kind, byteLength);
}

function machineFacts(): MachineFacts {
  const { platform, version } = process;
  return {
    cpu: (cpus()[0]?.model ?? "unknown processor").trim(),
    cpus: availableParallelism(),
    memoryBytes: totalmem(),
    system: platform === "linux" ? `Linux ${release()}` : `${type()} ${release()}`,
    node: version,
  };
}
