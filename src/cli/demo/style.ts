// How a terminal can be written to: its width, whether it has colours, and whether it knows more than ASCII.

import { hasColour, type Paint, paint } from "../terminal.ts";

export interface Style {
  /** Columns. */
  readonly width: number;
  readonly unicode: boolean;
  /** 256 colours. */
  readonly manyColours: boolean;
  paint(format: Paint, text: string): string;
}

/** LIMIT: beyond it lines become hard to follow. */
const WIDTH_MAX = 110;
const WIDTH_DEFAULT = 80;

export function styleOf(stream: NodeJS.WriteStream): Style {
  const colour = hasColour(stream);
  return {
    width: Math.max(WIDTH_DEFAULT, Math.min(stream.columns ?? WIDTH_DEFAULT, WIDTH_MAX)),
    unicode: knowsUnicode(),
    manyColours: colour && (stream.isTTY ? stream.getColorDepth() >= 8 : true),
    paint: (format, text) => (colour ? paint(format, text, stream) : text),
  };
}

/** Whether the locale says UTF-8; systems without locales in the environment have been UTF-8 for long. */
function knowsUnicode(): boolean {
  if (process.platform !== "linux") return true;
  const { LC_ALL, LC_CTYPE, LANG } = process.env;
  return /utf-?8/i.test(LC_ALL || LC_CTYPE || LANG || "");
}

const ASCII: Readonly<Record<string, string>> = {
  µ: "u",
  "×": "x",
  "–": "-",
  "·": ".",
  "░": ":",
  "▒": "+",
  "▓": "*",
  "█": "#",
  "✔": "+",
  "✘": "!",
  "─": "-",
};

/** The text as this terminal can show it. */
export function plain(text: string, style: Style): string {
  return style.unicode ? text : text.replace(/[\u0080-\uffff]/g, (character) => ASCII[character] ?? "?");
}
