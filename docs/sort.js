// Sort a table inside <div class="sortable"> by the column whose head is clicked, by numbers where there are any.
for (const table of document.querySelectorAll(".sortable table")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const sort = () => {
      const up = head.ariaSort === "descending" ? 1 : -1;
      const key = (row) => row.cells[column].textContent.trim();
      const number = (row) => Number.parseFloat(key(row).replace("−", "-").replace(/,(?=\d{3})/g, ""));
      const lacks = (row) => Number.isNaN(number(row)); // then it comes last, in both directions
      const compare = (a, b) => (lacks(a) ? key(a).localeCompare(key(b)) : number(a) - number(b));
      body.append(...[...body.rows].sort((a, b) => lacks(a) - lacks(b) || up * compare(a, b)));
      for (const other of head.parentNode.cells) other.ariaSort = null;
      head.ariaSort = up > 0 ? "ascending" : "descending";
    };
    head.tabIndex = 0;
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => {
      if (!["Enter", " "].includes(event.key)) return;
      event.preventDefault(); // the space bar would scroll
      sort();
    });
  });
}
