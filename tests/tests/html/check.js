// Uses the page as a reader would, and leaves what it saw in an element that the test reads.
(() => {
  const seen = { drawn_ms: performance.now(), requests: performance.getEntriesByType("resource").map((one) => one.name) };
  const over = (at) => charts[at].plot.over;
  const mouse = (target, kind, x, buttons) => {
    const box = target.getBoundingClientRect();
    target.dispatchEvent(new MouseEvent(kind, { bubbles: true, cancelable: true, view: window, clientX: box.left + x * box.width, clientY: box.top + box.height / 2, movementX: 9, button: 0, buttons }));
  };
  const range = (at) => [charts[at].plot.scales.x.min, charts[at].plot.scales.x.max];
  const later = () => new Promise((done) => setTimeout(done, 100));
  async function use() {
    await later();
    seen.charts = document.querySelectorAll(".chart canvas").length;
    seen.sequence = document.querySelectorAll("#sequence canvas").length;
    seen.flows = document.querySelectorAll("svg.flow path.lost").length;
    seen.whole = range(0);
    mouse(over(0), "mouseenter", .3, 0);
    mouse(over(0), "mousemove", .3, 0);
    await later();
    seen.cursors = charts.slice(0, 4).map((one) => Math.round(10 * one.plot.posToVal(one.plot.cursor.left, "x")) / 10);
    mouse(over(0), "mousedown", .25, 1);
    mouse(over(0), "mousemove", .4, 1);
    mouse(over(0), "mousemove", .6, 1);
    mouse(over(0), "mouseup", .6, 0);
    await later();
    seen.zoomed = [range(0), range(1)];
    mouse(over(0), "dblclick", .5, 0);
    await later();
    seen.back = range(0);
    const links = [...document.querySelectorAll("details.finding a")];
    seen.links = links.length;
    seen.dead = links.filter((link) => !document.querySelector(link.getAttribute("href"))).map((link) => link.textContent);
    if (links.length) { links[0].click(); seen.hash = location.hash; }
    const widths = () => [...document.querySelectorAll("svg.flames rect")].map((one) => Number(one.getAttribute("width")));
    seen.flames = widths().length;
    const frame = [...document.querySelectorAll("svg.flames g")].find((one) => Number(one.querySelector("rect").getAttribute("width")) < 900);
    if (frame) {
      const before = Number(frame.querySelector("rect").getAttribute("width"));
      frame.dispatchEvent(new MouseEvent("click", { bubbles: true }));
      seen.widened = widths()[1] > before;
    }
    seen.background = getComputedStyle(document.body).backgroundColor;
    seen.ink = getComputedStyle(document.documentElement).getPropertyValue("--front").trim();
    seen.wider_than_the_screen = document.documentElement.scrollWidth > document.documentElement.clientWidth;
  }
  use().catch((error) => { seen.failed = String(error && error.stack || error); }).finally(() => {
    const box = document.createElement("pre");
    box.id = "seen";
    box.textContent = JSON.stringify(seen);
    document.body.append(box);
  });
})();
