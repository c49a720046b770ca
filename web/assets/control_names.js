// Names of Gradio's controls for screen readers, and help texts that belong to them.

let helpTexts = 0;

export function describeControls() {
  for (const block of document.querySelectorAll(".tabitem .block:has([data-testid=block-info], .info-text)")) {
    const title = block.querySelector("[data-testid=block-info]"), help = block.querySelector(".info-text");
    for (const part of [title, help]) if (part && !part.id) part.id = `sd-help-${++helpTexts}`;
    for (const control of block.matches("fieldset") ? [block] : block.querySelectorAll("input, textarea")) {
      if (help) control.setAttribute("aria-describedby", help.id);
      if (title && control === block) control.setAttribute("aria-labelledby", title.id);
      else if (title) control.ariaLabel = title.textContent;
    }
  }
  for (const button of document.querySelectorAll(".gr-accordion > button.label-wrap")) {
    button.ariaExpanded = String(button.classList.contains("open"));
    button.querySelector(".icon").ariaHidden = "true";
  }
}
