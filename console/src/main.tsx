import { render } from "preact";

import { App } from "./app";
import { startPolling } from "./state/polling";
import { start } from "./state/signals";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/parts.css";
import "./styles/models.css";
import "./styles/chat.css";
import "./styles/mesh.css";
import "./styles/pages.css";

const root = document.getElementById("app");
if (root) {
  start();
  startPolling();
  root.replaceChildren(); // what was shown until the script came
  render(<App />, root);
}
