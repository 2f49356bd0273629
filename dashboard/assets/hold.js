// A live refresh replaces markup. Who has reached a link by keyboard, or selected text, has it still afterwards.
if (!window.switchgearHolds) {
  window.switchgearHolds = true;
  let reached = null;
  let selected = null;

  const alike = (href) => [...document.querySelectorAll(".stHtml a")].filter((link) => link.getAttribute("href") === href);

  document.addEventListener("focusin", ({ target }) => {
    const link = target.closest(".stHtml a");
    reached = link && { link, href: link.getAttribute("href"), nth: alike(link.getAttribute("href")).indexOf(link) };
  });
  document.addEventListener("focusout", ({ target }) => {
    setTimeout(() => { if (reached?.link === target && target.isConnected) reached = null; });  // left, and not replaced
  });

  const nearest = (whole, text, before) => {
    let found = -1;
    for (let at = whole.indexOf(text); at >= 0; at = whole.indexOf(text, at + 1))
      if (found < 0 || Math.abs(at - before) < Math.abs(found - before)) found = at;
    return found;
  };
  const placeAt = (box, length) => {
    const texts = document.createTreeWalker(box, NodeFilter.SHOW_TEXT);
    let left = length;
    while (texts.nextNode() && left > texts.currentNode.length) left -= texts.currentNode.length;
    return [texts.currentNode, left];
  };

  document.addEventListener("selectionchange", () => {
    const range = window.getSelection().rangeCount && window.getSelection().getRangeAt(0);
    const common = range && !range.collapsed && range.commonAncestorContainer;
    const box = common && (common.closest ? common : common.parentElement).closest(".stHtml");
    if (!box) return (selected = null);
    const before = document.createRange();
    before.setStart(box, 0);
    before.setEnd(range.startContainer, range.startOffset);
    selected = { box, node: range.startContainer, text: range.toString(), before: before.toString().length };
  });

  new MutationObserver(() => {
    if (reached && !reached.link.isConnected && document.activeElement === document.body)
      alike(reached.href)[reached.nth]?.focus({ preventScroll: true });
    if (selected && !selected.node.isConnected && selected.box.isConnected) {
      const at = nearest(selected.box.textContent, selected.text, selected.before);
      if (at < 0) return;
      const [first, after] = placeAt(selected.box, at + 1);
      window.getSelection().setBaseAndExtent(first, after - 1, ...placeAt(selected.box, at + selected.text.length));
    }
  }).observe(document.body, { childList: true, subtree: true });
}
