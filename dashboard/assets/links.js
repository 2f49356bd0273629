// Links inside the dashboard change the address and tell Streamlit, instead of loading everything again.
if (!window.switchgearLinks) {
  window.switchgearLinks = true;
  document.addEventListener("click", (event) => {
    const link = event.target.closest(".stHtml a[href^='/']");
    if (!link || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    if (link.origin !== window.location.origin) return;
    event.preventDefault();
    window.history.pushState({}, "", link.href);
    window.dispatchEvent(new PopStateEvent("popstate"));
  });
}
