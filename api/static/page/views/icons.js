/** Small drawings; what they mean always stands beside them as text or as a label. */

import { html } from "../../vendor/lit-html/lit-html.js";

const draw = (path) => html`
  <svg class="icon" viewBox="0 0 24 24" width="20" height="20" aria-hidden="true" focusable="false">
    <path
      d=${path}
      fill="none"
      stroke="currentColor"
      stroke-width="1.8"
      stroke-linecap="round"
      stroke-linejoin="round"
    />
  </svg>
`;

export const PHOTOS = draw(
  "M4 7a2 2 0 0 1 2-2h9a2 2 0 0 1 2 2v9a2 2 0 0 1-2 2H6a2 2 0 0 1-2-2zM4 15l4-4 3 3 2-2 4 4M20 8v11a2 2 0 0 1-2 2H8",
);
export const FOLDER = draw("M3 7a2 2 0 0 1 2-2h4l2 2h8a2 2 0 0 1 2 2v8a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2z");
export const ADDRESS = draw(
  "M10 14a4 4 0 0 0 6 .5l3-3a4 4 0 0 0-6-6l-1.500 1.500M14 10a4 4 0 0 0-6-.5l-3 3a4 4 0 0 0 6 6l1.500-1.500",
);
export const COPY = draw("M9 9h10v11H9zM15 9V4H5v11h4");
export const EDIT = draw("M4 20l1-4L16 5l3 3L8 19zM14 7l3 3");
export const DOWN = draw("M12 4v11M7 11l5 5 5-5M5 20h14");
export const AGAIN = draw("M20 5v5h-5M19.500 10A8 8 0 1 0 20 14");
export const STOP = draw("M7 7h10v10H7z");
export const REMOVE = draw("M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13");
export const BEFORE = draw("M15 5l-7 7 7 7");
export const NEXT = draw("M9 5l7 7-7 7");
export const CLOSE = draw("M6 6l12 12M18 6L6 18");
export const SEARCH = draw("M10.500 4a6.500 6.500 0 1 0 0 13 6.500 6.500 0 0 0 0-13zM15.500 15.500L20 20");
export const ARRIVE = draw("M12 19V6M6 11l6-6 6 6M4 20h16");
