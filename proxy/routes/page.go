package routes

import (
	"html/template"
	"log/slog"
	"net/http"

	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/servergroup"
)

// pages are the paths of Prometheus' user interface. Links into it, such as those
// of alerts, must lead somewhere: to our only page.
var pages = []string{
	"/query", "/alerts", "/rules", "/tsdb-status", "/config", "/flags",
	"/service-discovery", "/alertmanager-discovery", "/status", "/targets",
}

var pageTemplate = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>oneprom</title></head>
<body>
<h1>oneprom</h1>
<p>PromQL of Prometheus {{.Version}}.
<a href="{{.Base}}/api/v1/status/config">configuration</a>
<a href="{{.Base}}/api/v1/status/flags">flags</a>
<a href="{{.Base}}/api/v1/status/groups">groups</a>
<a href="{{.Base}}/metrics">metrics</a></p>
<form action="{{.Base}}/api/v1/query">
<input name="query" size="80" value="{{.Query}}" aria-label="PromQL expression">
<button>Query</button>
</form>
<table>
<tr><th>group</th><th>region</th><th>replica</th><th>health</th><th>version</th><th>last error</th></tr>
{{- range $g := .Groups}}{{range .Replicas}}
<tr><td>{{$g.Name}}</td><td>{{$g.Region}}</td><td>{{.URL}}</td><td>{{.Health}}</td><td>{{.Version}}</td><td>{{.LastError}}</td></tr>
{{- else}}
<tr><td>{{.Name}}</td><td>{{.Region}}</td><td colspan="4">no replicas</td></tr>
{{- end}}{{end}}
</table>
</body>
</html>
`))

// page shows the groups and a form that leads to the API.
type page struct {
	base   string // the path of --web.external-url
	groups func() []servergroup.GroupStatus
	logger *slog.Logger
}

func (p page) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	err := pageTemplate.Execute(w, struct {
		Version, Base, Query string
		Groups               []servergroup.GroupStatus
	}{api.Version, p.base, r.FormValue("g0.expr"), p.groups()})
	if err != nil {
		p.logger.Debug("writing the page failed", "err", err)
	}
}

// redirect leads to the page.
func (p page) redirect(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, p.base+"/query", http.StatusFound)
}

// redirectGraph is the same for links of old, with their parameters.
func (p page) redirectGraph(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, p.base+"/query?"+r.URL.RawQuery, http.StatusFound)
}
