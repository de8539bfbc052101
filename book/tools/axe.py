"""axe-core, which looks whether a page can be read by everybody, pinned from npm."""
import tarfile

from npm import fetch

PACKAGE = "axe-core-4.14.1"
SHA512 = ("1477dafa598d8d065f273d6af302aa203c02e83131707b7fa648cd41bd3d6b73"
          "4f8c22a0dab86ee6a6f64b8afbe804b214d36db85a2826965edfb3a0b9d546b5")
# What is folded is looked at as well, and no colour on its way to another.
UNFOLD = """
const style = document.createElement('style');
style.textContent = '* { transition: none !important; animation: none !important; }';
document.head.append(style);
document.querySelectorAll('article details').forEach(e => { e.open = true; });
document.querySelectorAll('article .toggle-hidden')
  .forEach(e => e.classList.remove('toggle-hidden'));
"""
# Thousands of words of code and cells of tables are coloured by the same few classes:
# of those alike, within elements alike, the first stays.
THIN = """
const seen = new Set();
const style = e => e.tagName + e.getAttribute('class') + e.getAttribute('style');
const within = e => e && e !== document.body ? style(e) + within(e.parentElement) : '';
for (const e of document.querySelectorAll('pre, tbody')) {
  const place = within(e);
  e.replaceChildren(...[...e.childNodes].filter(child => {
    if (child.nodeType !== Node.ELEMENT_NODE) return true;
    const key = place + [child, ...child.querySelectorAll('*')].map(style);
    return !seen.has(key) && seen.add(key);
  }));
}
"""
COLOURS = ("color-contrast", "link-in-text-block")
RUN = """
const [rules, only, done] = arguments;
const options = {resultTypes: ['violations'], preload: false};
if (only) {
  options.runOnly = {type: 'rule', values: rules};
} else {
  options.rules = Object.fromEntries(rules.map(rule => [rule, {enabled: false}]));
}
// thousands of elements, coloured as the text around them
axe.run({exclude: ['mjx-container']}, options).then(
  found => done(found.violations
    .filter(one => ['serious', 'critical'].includes(one.impact))
    .map(one => {
      const where = one.nodes.slice(0, 3).map(node => node.target.join(' '));
      return `axe, ${one.impact}: ${one.id}, ${one.nodes.length} times: `
        + where.join('  |  ');
    })),
  error => done([`axe: ${error}`]));
"""


def script() -> str:
    """axe.min.js; RuntimeError without npm."""
    with tarfile.open(fetch(PACKAGE, SHA512)) as packed:
        return packed.extractfile("package/axe.min.js").read().decode()


def violations(driver, axe: str, every_rule: bool) -> list[str]:
    """The serious and critical ones of the page that is shown, which is thinned by it;
    else those of colour only, the rules that a page may break anew when it turns dark.
    """
    said = []
    if every_rule:
        driver.execute_script(UNFOLD)
        driver.execute_script(axe)
        said = driver.execute_async_script(RUN, COLOURS, False)
        driver.execute_script(THIN)
    return said + driver.execute_async_script(RUN, COLOURS, True)
