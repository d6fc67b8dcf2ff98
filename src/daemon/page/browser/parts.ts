// HTML on the page, and how it is renewed: only what has changed, so that focus, selection and what a reader has opened
// stay where they are.

export function element<Kind extends HTMLElement = HTMLElement>(id: string): Kind {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`The page has no #${id}`);
  return found as Kind;
}

export function setText(target: HTMLElement, text: string): void {
  if (target.textContent !== text) target.textContent = text;
}

/** What each element was last given: what the browser makes of HTML need not be the same text. */
const given = new WeakMap<Element, string>();

export function setHtml(target: Element, html: string): void {
  if (given.get(target) === html) return;
  given.set(target, html);
  target.innerHTML = html;
}

/** Shows HTML whose parts have names (data-part): a second time only the parts are renewed. */
export function setParts(target: Element, key: string, html: string): void {
  if (target.getAttribute("data-key") !== key) {
    target.setAttribute("data-key", key);
    given.delete(target);
    setHtml(target, html);
    return;
  }
  const template = document.createElement("template");
  template.innerHTML = html;
  const present = new Map(
    [...target.querySelectorAll("[data-part]")].map((part) => [part.getAttribute("data-part"), part]),
  );
  for (const part of template.content.querySelectorAll("[data-part]")) {
    const old = present.get(part.getAttribute("data-part"));
    if (old !== undefined) setHtml(old, part.innerHTML);
  }
}
