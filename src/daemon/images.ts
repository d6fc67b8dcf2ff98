// The images that a server has open: each is opened once, ahead of its first guest, and all its guests share the reader.

import { isDeepStrictEqual } from "node:util";
import { MinorfaultError } from "../base/errors.ts";
import type { PagerHost, PagerSource, WarmSource } from "../pager/index.ts";
import type { ImageConfig } from "./config.ts";
import type { ImageStatus } from "./guests.ts";

/** LIMIT: images that are held open although no configuration names them, because guests were announced for them. */
const UNNAMED_MAX = 256;

interface Opened {
  readonly config: ImageConfig;
  state: ImageStatus["state"];
  warm: WarmSource | undefined;
  opening: Promise<WarmSource> | undefined;
  error: string | undefined;
}

export class Images {
  readonly #host: PagerHost;
  readonly #images = new Map<string, Opened>();
  readonly #named = new Set<string>();
  #keeps = false;

  constructor(host: PagerHost) {
    this.#host = host;
  }

  get names(): readonly string[] {
    return [...this.#named];
  }

  /** Named by the configuration. */
  add(config: ImageConfig): void {
    this.#named.add(config.name);
    this.#add(config);
  }

  remove(name: string): void {
    this.#named.delete(name);
    const image = this.#images.get(name);
    this.#images.delete(name);
    image?.opening?.then((warm) => warm.close()).catch(() => undefined);
  }

  /** Names these and no others. One that is something else by now is opened anew. */
  reconcile(configs: readonly ImageConfig[]): void {
    const wanted = new Map(configs.map((config) => [config.name, config]));
    for (const name of this.names) {
      if (!isDeepStrictEqual(wanted.get(name), this.find(name))) this.remove(name);
    }
    for (const config of configs) if (!this.isNamed(config.name)) this.add(config);
  }

  isNamed(name: string): boolean {
    return this.#named.has(name);
  }

  /** The image of a name, or of a URL. */
  find(name: string): ImageConfig {
    const known = this.#images.get(name);
    if (known !== undefined) return known.config;
    if (!/[/:]/.test(name)) throw new MinorfaultError("ERR_NO_SUCH", `No image is called ${name}`);
    if (this.#images.size - this.#named.size >= UNNAMED_MAX) this.#forgetOne();
    return this.#add({ name, source: { url: name } });
  }

  /** Opens it, once. @throws ERR_NO_SUCH, and what stands in the way of its source */
  async open(name: string): Promise<WarmSource> {
    this.find(name);
    const image = this.#images.get(name)!;
    image.opening ??= this.#open(image);
    return await image.opening;
  }

  /**
   * From now on the working sets of images that are to be warm are at hand. Only who serves has them: a spare that has as
   * much memory would be a dear spare. Those that were named while it was one are opened now.
   */
  keepWorkingSets(): void {
    this.#keeps = true;
    for (const image of this.#images.values()) {
      this.#keep(image);
      // Failures are in its status.
      if (image.state === "cold" && this.#isWanted(image))
        this.open(image.config.name).catch(() => undefined);
    }
  }

  #keep(image: Opened): void {
    if (this.#keeps && this.#isWanted(image)) image.warm?.keep();
  }

  #isWanted({ config }: Opened): boolean {
    return config.warm !== false && this.#named.has(config.name);
  }

  status(name: string): Pick<ImageStatus, "state" | "byteLength" | "workingSets" | "error"> {
    const { state = "cold", warm, error } = this.#images.get(name) ?? {};
    return {
      state,
      ...(warm === undefined ? {} : { byteLength: warm.byteLength, workingSets: warm.workingSets }),
      ...(error === undefined ? {} : { error }),
    };
  }

  source(name: string): PagerSource {
    return this.find(name).source;
  }

  #add(config: ImageConfig): ImageConfig {
    this.#images.set(config.name, {
      config,
      state: "cold",
      warm: undefined,
      opening: undefined,
      error: undefined,
    });
    return config;
  }

  async #open(image: Opened): Promise<WarmSource> {
    image.state = "warming";
    try {
      image.warm = await this.#host.warm(image.config.source);
      image.state = "warm";
      image.error = undefined;
      this.#keep(image);
      return image.warm;
    } catch (error) {
      image.state = "failed";
      image.error = error instanceof Error ? error.message : String(error);
      // Whoever comes next tries anew: a store that does not answer now may do so then.
      image.opening = undefined;
      throw error;
    }
  }

  #forgetOne(): void {
    const name = [...this.#images.keys()].find((each) => !this.#named.has(each));
    if (name !== undefined) this.remove(name);
  }
}
