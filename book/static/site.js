// What the theme leaves out for a narrow screen, a keyboard or a screen reader.
const all = (selector) => [...document.querySelectorAll(selector)];
const READABLE = 9;     // pixels of the smallest text in a figure

// A name that hides the words on a button is no help.
function showNames() {
  const named = 'button.search-button-field[aria-label], summary[aria-label]';
  all(named).forEach((button) => button.removeAttribute('aria-label'));
}

// Lists whose entries the theme gives other roles, or sets between a name's brackets.
function repairLists() {
  all('.citation-list > [role=doc-biblioentry]').forEach((entry) => {
    entry.setAttribute('role', 'listitem');
  });
  all('dt dl').forEach((list) => {
    list.setAttribute('role', 'list');
    [...list.children].forEach((item) => item.setAttribute('role', 'listitem'));
  });
}

// A figure's own box, in which it scrolls rather than have text too small to read.
function keepReadable(image) {
  const told = image.closest('[class*=smallest-text-]')?.className
    .match(/smallest-text-([\d.]+)/);
  if (!told || !image.naturalWidth) return;
  const least = Math.ceil(image.naturalWidth * READABLE / told[1]);
  const held = image.closest('.ddad-frames > div') || image;
  held.style.minWidth = `${Math.min(least, image.naturalWidth)}px`;
  if (held.parentElement.matches('.figure-box')) return;
  const box = document.createElement('div');
  box.className = 'figure-box';
  held.before(box);
  box.append(held);
}

// An equation shrinks to fit, but no further than its indices, seven tenths as large as
// the rest, can be read.
function fitEquation(box) {
  const size = parseFloat(getComputedStyle(box).fontSize);
  const width = () => box.firstElementChild.getBoundingClientRect().width;
  const factor = (box.clientWidth - 1) / width();
  if (factor >= 1) return;
  box.style.fontSize = `${Math.max(size * factor, READABLE / 0.7)}px`;
  box.parentElement.classList.toggle('scrolls', width() > box.clientWidth + 1);
}

// What scrolls sideways says so, and does so by keyboard.
const SCROLLING = '.pst-scrollable-table-container, .figure-box, '
  + 'article .output.text_html';
function tell(box) {
  const tooWide = () => box.scrollWidth > box.clientWidth + 1;
  if (tooWide()) box.classList.add('tight');
  const scrolls = tooWide();
  box.classList.toggle('scrolls', scrolls);
  if (!scrolls) {
    ['tabindex', 'role', 'aria-label'].forEach((name) => box.removeAttribute(name));
    return;
  }
  const kind = box.querySelector('table') ? 'Table' : 'Figure';
  box.tabIndex = 0;
  box.setAttribute('role', 'group');
  box.setAttribute('aria-label', `${kind}, scrolls sideways`);
}

// So does code that was folded when the theme looked for what scrolls.
function reach(pre) {
  if (pre.scrollWidth > pre.clientWidth + 1) pre.tabIndex = 0;
}

function watch() {
  for (const [selector, seen] of [[SCROLLING, tell], ['article pre', reach]]) {
    const sizes = new ResizeObserver((sized) => sized.forEach((one) => seen(one.target)));
    all(selector).forEach((box) => { sizes.observe(box); seen(box); });
  }
}

document.addEventListener('DOMContentLoaded', () => { showNames(); repairLists(); });
addEventListener('load', () => {
  const narrow = matchMedia('(max-width: 767.98px)');
  const fit = () => {
    if (narrow.matches) {
      all('article img').forEach(keepReadable);
      window.MathJax?.startup.promise.then(
        () => all('div.math > mjx-container').forEach(fitEquation));
    }
    watch();
  };
  fit();
  narrow.addEventListener('change', fit);
});
