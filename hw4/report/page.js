// A tap says what the mark beside it is, as hovering does by itself.
addEventListener("click", ({ target, clientX, clientY }) => {
  const far = (mark) => {
    const box = mark.getBoundingClientRect();
    return Math.hypot(box.x + box.width / 2 - clientX, box.y + box.height / 2 - clientY);
  };
  const marks = [...(target.closest(".panels")?.querySelectorAll("use") ?? [])].filter((mark) => mark.textContent);
  const nearest = marks.sort((one, other) => far(one) - far(other))[0];
  document.querySelector("output").textContent = nearest && far(nearest) < 30 ? nearest.textContent : "";
});
