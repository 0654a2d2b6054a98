package backendtest

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/prometheus/prometheus/model/metadata"
)

// metadataHandler answers /api/v1/metadata from a table. Upstream's own handler asks scrape targets,
// which a backend made of a storage does not have.
func metadataHandler(all map[string][]metadata.Metadata) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		limit, ok := intParam(w, r, "limit")
		if !ok {
			return
		}
		perMetric, ok := intParam(w, r, "limit_per_metric")
		if !ok {
			return
		}
		data := map[string][]metadata.Metadata{}
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if limit >= 0 && len(data) >= limit {
				break
			}
			if want := r.FormValue("metric"); want != "" && want != name || len(all[name]) == 0 {
				continue
			}
			data[name] = all[name]
			if perMetric > 0 && len(all[name]) > perMetric {
				data[name] = all[name][:perMetric]
			}
		}
		WriteJSON(w, http.StatusOK, map[string]any{"status": "success", "data": data})
	})
}

// intParam returns a number from the request, -1 if it is absent. If it is no number, the request has
// been answered and ok is false.
func intParam(w http.ResponseWriter, r *http.Request, name string) (n int, ok bool) {
	s := r.FormValue(name)
	if s == "" {
		return -1, true
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		WriteJSON(w, http.StatusBadRequest, map[string]any{
			"status": "error", "errorType": "bad_data", "error": name + " must be a number",
		})
		return 0, false
	}
	return n, true
}

// WriteJSON answers with v in the way of Prometheus' HTTP API.
func WriteJSON(w http.ResponseWriter, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(body) // a client that went away is not our concern
}
