import { defineConfig, loadEnv } from "vite";

export default defineConfig(({ mode }) => {
  // The dev server shows a real node's data: MESH_LLM_ADDRESS=127.0.0.1:9337 npm run dev
  const node = `http://${loadEnv(mode, ".", "MESH_LLM_")["MESH_LLM_ADDRESS"] ?? "127.0.0.1:9337"}`;
  const forward = { target: node, changeOrigin: true, headers: { origin: node } };
  return {
    base: "./", // works under any path of a reverse proxy
    server: { proxy: { "/api": forward, "/v1": forward } },
    build: {
      target: "es2023",
      assetsInlineLimit: 0, // the content-security policy admits no data: addresses
      modulePreload: { polyfill: false },
      emptyOutDir: true,
    },
  };
});
