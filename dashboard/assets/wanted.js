// Keeps the page that was asked for until the identity provider sends its reader back; `WayBack` leads there then.
document.cookie =
  "switchgear_wanted=" + encodeURIComponent(window.location.pathname + window.location.search) +
  "; path=/oauth2callback; samesite=lax" + (window.location.protocol === "https:" ? "; secure" : "");
