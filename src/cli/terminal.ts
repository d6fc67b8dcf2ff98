// Colours, where the terminal has them and the user has not said no (NO_COLOR, FORCE_COLOR, a pipe).

import { styleText } from "node:util";

export type Paint = Parameters<typeof styleText>[0];

export function hasColour(stream: NodeJS.WriteStream = process.stdout): boolean {
  if (process.env.NO_COLOR) return false;
  if (process.env.FORCE_COLOR) return process.env.FORCE_COLOR !== "0";
  return stream.isTTY === true;
}

export function paint(format: Paint, text: string, stream?: NodeJS.WriteStream): string {
  return hasColour(stream) ? styleText(format, text) : text;
}
