import { render } from "preact";

import { App } from "./app";
import { start } from "./state/signals";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/parts.css";
import "./styles/models.css";
import "./styles/chat.css";

const root = document.getElementById("app");
if (root) {
  start();
  render(<App />, root);
}
