"use strict";
// A click on a heading sorts by its column: numbers by value, the rest as text; a second click turns the order round.
for (const button of document.querySelectorAll("table.sortable th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement;
    const column = [...head.parentElement.children].indexOf(head);
    const body = head.closest("table").tBodies[0];
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const key = (row) => row.children[column].dataset.value;
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      // What was not measured stands last, whichever way the column is sorted.
      if (x === undefined && y === undefined) {
        return sign * a.children[column].textContent.localeCompare(b.children[column].textContent);
      }
      if (x === undefined || y === undefined) return x === undefined ? 1 : -1;
      return sign * (Number(x) - Number(y));
    };
    body.append(...[...body.rows].sort(order));
  });
}
