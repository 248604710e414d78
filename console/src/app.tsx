import { computed, signal } from "@preact/signals";

import { Header } from "./views/header";
import { Chat } from "./views/chat";
import { Connect } from "./views/connect";
import { KeyForm } from "./views/key-form";
import { Models } from "./views/models";
import { Nodes } from "./views/nodes";
import { node } from "./state/signals";

const TABS = [
  { path: "models", title: "Models", view: Models },
  { path: "nodes", title: "Nodes", view: Nodes },
  { path: "chat", title: "Chat", view: Chat },
  { path: "connect", title: "Connect", view: Connect },
] as const;

// The tab is the address's fragment: it survives a reload, and the browser's back button works.
const fragment = signal(location.hash.slice(1));
addEventListener("hashchange", () => (fragment.value = location.hash.slice(1)));
const tab = computed(() => TABS.find((entry) => entry.path === fragment.value) ?? TABS[0]);

export function App() {
  const View = tab.value.view;
  return (
    <>
      <a class="skip" href={`#${tab.value.path}`} onClick={() => document.querySelector("main")?.focus()}>
        Skip to content
      </a>
      <Header />
      <nav aria-label="Console">
        {TABS.map(({ path, title }) => (
          <a key={path} href={`#${path}`} aria-current={path === tab.value.path ? "page" : undefined}>
            {title}
          </a>
        ))}
      </nav>
      <main tabIndex={-1}>{node.value.connection === "refused" ? <KeyForm /> : <View />}</main>
    </>
  );
}
