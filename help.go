package main

import (
	"strings"
	"text/template"

	"github.com/alecthomas/kingpin/v2"
)

// withoutServer are the commands to which the flags of the server mean nothing. Their help has
// only their own.
var withoutServer = map[string]bool{
	"check": true, "check healthy": true, "check ready": true, "schema": true, "migrate": true, "verify": true, "demo": true,
}

// shortenHelp makes the help of such commands.
func shortenHelp(app *kingpin.Application) {
	const flags = "{{if .Context.Flags -}}\nFlags:\n{{.Context.Flags|FlagsToTwoColumns|FormatTwoColumns}}\n{{end -}}"
	own := strings.ReplaceAll(flags, ".Context.Flags", ".Context.SelectedCommand.Flags")
	app.UsageFuncs(template.FuncMap{
		"WithoutServer": func(c *kingpin.CmdModel) bool { return c != nil && withoutServer[c.FullCommand] },
	})
	app.UsageTemplate(strings.Replace(kingpin.DefaultUsageTemplate, flags, "{{if WithoutServer .Context.SelectedCommand -}}\n"+own+"\n{{else -}}\n"+flags+"\n{{end -}}", 1))
}
