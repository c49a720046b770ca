// Words for an event that was refused on its way: a proxy answers with HTML, which Gradio cannot read.

import strings from "./strings.js";

export function explainRefusedEvents() {
  const ask = window.fetch;
  window.fetch = async (...request) => {
    const answer = await ask(...request), type = answer.headers.get("content-type") ?? "";
    if (answer.ok || !answer.url.includes("/gradio_api/") || type.startsWith("application/json")) return answer;
    const said = type.startsWith("text/plain") ? (await answer.text()).slice(0, 200) : "";   // by this server
    const words = strings.http[answer.status] ?? (said || strings.http.other.replace("{status}", answer.status));
    return Response.json({ detail: words, error: words }, { status: answer.status });
  };
}
