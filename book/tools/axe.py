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
RUN = """
const [all, done] = arguments;
const options = {resultTypes: ['violations'], preload: false};
if (!all) {
  options.runOnly = {type: 'rule', values: ['color-contrast', 'link-in-text-block']};
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
    """The serious and critical ones of the page that is shown; else those of colour
    only, the rules that a page may break anew when it turns dark.
    """
    if every_rule:
        driver.execute_script(UNFOLD)
        driver.execute_script(axe)
    return driver.execute_async_script(RUN, every_rule)
