// The table of guests: a row each, kept while its guest is there, in the order that was asked for. One row is in the order
// of Tab; the arrow keys go on from there.

import { type FrameGuest, shareOf } from "../../control/frame.ts";
import { cellsSvg, levelOf } from "../draw.ts";
import { countText, escaped, microsecondsText, percentText } from "../words.ts";
import { element, setHtml, setText } from "./parts.ts";

type Order = (one: FrameGuest, other: FrameGuest) => number;

const ORDERS: Readonly<Record<string, Order>> = {
  since: (one, other) => one.ageMs - other.ageMs,
  waiting: (one, other) => other.waiting - one.waiting,
  p99: (one, other) => other.p99Us - one.p99Us,
  resident: (one, other) => shareResident(other) - shareResident(one),
  name: (one, other) => nameOf(one).localeCompare(nameOf(other), undefined, { numeric: true }),
};

export function nameOf({ name, id }: Pick<FrameGuest, "id" | "name">): string {
  return name ?? id;
}

export class GuestList {
  readonly #body = element("list");
  readonly #rows = new Map<string, HTMLTableRowElement>();
  readonly #onChoose: (id: string) => void;
  #guests: readonly FrameGuest[] = [];
  #chosen: string | undefined;

  constructor(onChoose: (id: string) => void) {
    this.#onChoose = onChoose;
    this.#body.addEventListener("click", (event) => {
      const row = (event.target as Element).closest("tr");
      if (row?.dataset.id !== undefined) this.#onChoose(row.dataset.id);
    });
    this.#body.addEventListener("keydown", (event) => this.#move(event));
    element("find").addEventListener("input", () => this.draw());
    element("order").addEventListener("change", () => this.draw());
  }

  show(guests: readonly FrameGuest[], chosen: string | undefined): void {
    this.#guests = guests;
    this.#chosen = chosen;
    this.draw();
  }

  draw(): void {
    const wanted = element<HTMLInputElement>("find").value.trim().toLowerCase();
    const order = ORDERS[element<HTMLSelectElement>("order").value] ?? ORDERS.name!;
    const shown = this.#guests
      .filter((guest) => `${nameOf(guest)} ${guest.id} ${guest.image}`.toLowerCase().includes(wanted))
      .sort((one, other) => order(one, other) || ORDERS.name!(one, other));
    const there = new Set(shown.map(({ id }) => id));
    for (const [id, row] of this.#rows) {
      if (there.has(id)) continue;
      row.remove();
      this.#rows.delete(id);
    }
    let before: Element | null = null;
    for (const guest of shown) {
      const row = this.#rowFor(guest);
      // A row that moves loses its focus, so only those move that have to.
      const place: Element | null =
        before === null ? this.#body.firstElementChild : before.nextElementSibling;
      if (place !== row) this.#body.insertBefore(row, place);
      before = row;
    }
    this.#rove(shown[0]?.id);
    setText(element("guests-heading"), this.#heading(shown.length));
    const nothing = element("nothing");
    nothing.hidden = shown.length > 0;
    setText(nothing, wanted === "" ? "No guest is being served now." : `No guest matches “${wanted}”.`);
  }

  #heading(shown: number): string {
    const all = this.#guests.length;
    return shown === all ? `Guests (${countText(all)})` : `Guests (${countText(shown)} of ${countText(all)})`;
  }

  #rowFor(guest: FrameGuest): HTMLTableRowElement {
    let row = this.#rows.get(guest.id);
    if (row === undefined) {
      row = document.createElement("tr");
      row.dataset.id = guest.id;
      row.innerHTML =
        '<th scope="row"><button type="button" tabindex="-1"></button></th><td class="image wide"></td>' +
        '<td class="strip"></td><td class="number"></td><td class="number wide"></td>' +
        '<td class="number"></td><td class="number"></td>';
      this.#rows.set(guest.id, row);
    }
    const [head, image, strip, resident, faults, p99, waiting] = [...row.cells];
    setText(head!.firstElementChild as HTMLElement, nameOf(guest));
    setText(image!, guest.image);
    const share = percentText(guest.residentBytes, guest.byteLength);
    const levels = [...guest.strip].map((digit) => levelOf(shareOf(digit)));
    setHtml(strip!, cellsSvg(levels, levels.length, escaped(`${share} resident`)));
    setText(resident!, share);
    setText(faults!, countText(guest.faults));
    setText(p99!, microsecondsText(guest.p99Us));
    setText(waiting!, guest.poisoned > 0 ? `${guest.poisoned} lost` : countText(guest.waiting));
    waiting!.className = `number${guest.poisoned > 0 ? " poisoned" : guest.waiting > 0 ? " waiting" : ""}`;
    if (guest.id === this.#chosen) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
    return row;
  }

  /** The button that Tab comes to: the one that has the focus, else the chosen one, else the first. */
  #rove(first: string | undefined): void {
    const focused = (document.activeElement?.closest("tr[data-id]") as HTMLElement | null)?.dataset.id;
    const candidates = [focused, this.#chosen, first];
    const tabbed = candidates.find((id) => id !== undefined && this.#rows.has(id));
    for (const [id, row] of this.#rows) row.querySelector("button")!.tabIndex = id === tabbed ? 0 : -1;
  }

  #move(event: KeyboardEvent): void {
    const row = (event.target as Element).closest("tr");
    const rows = [...this.#body.children];
    const at = row === null ? -1 : rows.indexOf(row);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    const button = to === undefined ? undefined : rows[to]?.querySelector("button");
    if (button === undefined || button === null) return;
    event.preventDefault();
    button.focus();
    this.#rove(undefined);
  }
}

function shareResident({ residentBytes, byteLength }: FrameGuest): number {
  return byteLength === 0 ? 0 : residentBytes / byteLength;
}
