// Server-sent events out of a stream of bytes, wherever it was cut.

/** LIMIT: characters of an event. */
const EVENT_MAX = 64 * 2 ** 20;

export interface ServerEvent {
  readonly event: string;
  readonly data: string;
}

export async function* eventsOf(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<ServerEvent> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const part of bytes) {
    text += decoder.decode(part, { stream: true });
    for (let end = text.indexOf("\n\n"); end !== -1; end = text.indexOf("\n\n")) {
      yield eventOf(text.slice(0, end));
      text = text.slice(end + 2);
    }
    if (text.length > EVENT_MAX) throw new RangeError("An event has no end");
  }
}

function eventOf(text: string): ServerEvent {
  let event = "message";
  const data: string[] = [];
  for (const line of text.split("\n")) {
    if (line.startsWith("event: ")) event = line.slice("event: ".length);
    else if (line.startsWith("data: ")) data.push(line.slice("data: ".length));
  }
  return { event, data: data.join("\n") };
}
