import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// Names without hashes, so that a rebuild shows in the history as a change and not as another file.
export default defineConfig({
  base: "/static/",
  plugins: [react()],
  server: { proxy: { "/api": "http://127.0.0.1:5173" }, port: 5174 },
  build: {
    outDir: "../src/lensing/server/static",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    rolldownOptions: {
      output: {
        entryFileNames: "page.js",
        chunkFileNames: "[name].js",
        assetFileNames: "page[extname]",
      },
    },
  },
});
