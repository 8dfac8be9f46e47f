"use strict";
// The board: its list and a run's curves are fetched anew every few seconds, while the page is seen.
(() => {
  const again = (every, work) => setTimeout(async () => {
    const go = document.hidden || (await work().catch(() => true)); // the board may be away for a while
    if (go) again(every, work);
  }, every);
  const fetched = async (address) => {
    const answer = await fetch(address, { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    return answer.json();
  };

  function watchRun(live) {
    let seen = document.getElementById("curves").textContent;
    again(2000, async () => {
      const now = await fetched(live.dataset.address);
      document.getElementById("result").textContent = now.result;
      document.getElementById("problems").replaceChildren(...now.problems.map((problem) => {
        const item = document.createElement("li");
        item.className = "bad";
        item.textContent = problem;
        return item;
      }));
      const text = JSON.stringify(now.curves);
      if (text !== seen) Charts.update(now.curves);
      seen = text;
      return now.going;
    });
  }

  function watchList(table) {
    const picks = [...document.querySelectorAll("input[name=run]")], button = document.getElementById("compare");
    const kept = new Set(JSON.parse(sessionStorage.getItem("picks") || "[]"));
    const picked = () => picks.filter((pick) => pick.checked).map((pick) => pick.value);
    const show = () => {
      const names = picked();
      sessionStorage.setItem("picks", JSON.stringify(names));
      if (button) button.disabled = names.length < 2;
      if (button) document.getElementById("picked").textContent = names.length < 2 ? "pick two runs or more to compare them" : `${names.length} runs`;
    };
    for (const pick of picks) {
      pick.checked = kept.has(pick.value);
      pick.addEventListener("change", show);
    }
    if (button) button.addEventListener("click", () => location.assign(`/compare?${new URLSearchParams(picked().map((name) => ["run", name]))}`));
    show();
    again(4000, async () => {
      const lines = await fetched("/runs.json");
      const rows = new Map([...document.querySelectorAll("[data-run]")].map((row) => [row.dataset.run, row]));
      if (lines.length !== rows.size || lines.some((line) => !rows.has(line.name))) return location.reload();
      for (const line of lines) for (const cell of rows.get(line.name).querySelectorAll("[data-cell]")) {
        cell.textContent = line[cell.dataset.cell];
        const values = { best: line.value, epochs: line.done };
        if (cell.dataset.cell in values) cell.dataset.value = values[cell.dataset.cell] ?? "";
      }
      return true;
    });
  }

  const live = document.getElementById("live"), runs = document.getElementById("runs");
  if (live && live.dataset.going) watchRun(live);
  if (runs) watchList(runs);
})();
