// A plugin that has the last word on which MCP servers are off: oh-my-opencode-slim registers servers of its own, and
// does not look at whether a server of that name has been switched off.
const off = (process.env.DEVBOX_MCP_OFF || "").split(",").filter(Boolean)

export const Switches = async () => ({
  config: async (config) => {
    for (const name of off) {
      if (config.mcp?.[name]) config.mcp[name] = { ...config.mcp[name], enabled: false }
    }
  },
})
