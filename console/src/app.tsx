import { computed } from "@preact/signals";

import { node, tab } from "./state/signals";
import { Activity } from "./views/activity";
import { Chat } from "./views/chat";
import { Connect } from "./views/connect";
import { Events } from "./views/events";
import { Header } from "./views/header";
import { KeyForm } from "./views/key-form";
import { Mesh } from "./views/mesh";
import { Models } from "./views/models";
import { Settings } from "./views/settings";

const TABS = [
  { path: "mesh", title: "Mesh", view: Mesh },
  { path: "models", title: "Models", view: Models },
  { path: "chat", title: "Chat", view: Chat },
  { path: "activity", title: "Activity", view: Activity },
  { path: "events", title: "Events", view: Events },
  { path: "connect", title: "Connect", view: Connect },
  { path: "settings", title: "Settings", view: Settings },
] as const;

const shown = computed(() => TABS.find((entry) => entry.path === tab.value) ?? TABS[0]);

export function App() {
  const View = shown.value.view;
  return (
    <>
      <a class="skip" href={`#${shown.value.path}`} onClick={() => document.querySelector("main")?.focus()}>
        Skip to content
      </a>
      <Header />
      <nav aria-label="Console">
        {TABS.map(({ path, title }) => (
          <a key={path} href={`#${path}`} aria-current={path === shown.value.path ? "page" : undefined}>
            {title}
          </a>
        ))}
      </nav>
      <main tabIndex={-1}>{node.value.connection === "refused" ? <KeyForm /> : <View />}</main>
    </>
  );
}
