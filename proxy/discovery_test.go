package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// shardServers are backends whose names are in their paths.
func shardServers(t *testing.T) (address string) {
	t.Helper()
	h := backendtest.NewHandler(backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 15s\n foo{i=\"1\"} 1x240\n foo{i=\"2\"} 1x240\n up 1x240")})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		r.URL.Path = "/" + path
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// targetList is what HTTP and file discovery read: two replicas of each shard.
func targetList(address string, shards ...string) []byte {
	type group struct {
		Targets []string          `json:"targets"`
		Labels  map[string]string `json:"labels"`
	}
	list := []group{}
	for _, s := range shards {
		for _, r := range []string{"a", "b"} {
			list = append(list, group{[]string{address}, map[string]string{"__meta_shard": "shard-" + s, "__meta_path": "/" + s + r, "replica": r}})
		}
	}
	text, err := json.Marshal(list)
	if err != nil {
		panic(err)
	}
	return text
}

const shardsConfig = `
server_groups:
  - name: shards
    group_by: [shard]
    forget_after: 0s
    replica_labels: [replica]
    %s
    relabel_configs:
      - {source_labels: [__meta_path], target_label: __path_prefix__}
      - {source_labels: [__meta_shard], regex: shard-(.+), target_label: shard}
`

func groupNames(h http.Handler) []string {
	var answer struct {
		Data []struct {
			Name string `json:"name"`
		} `json:"data"`
	}
	_ = json.Unmarshal(get(h, "/api/v1/status/groups").Body.Bytes(), &answer)
	var list []string
	for _, g := range answer.Data {
		list = append(list, g.Name)
	}
	return list
}

// TestDiscovery_ShardsComeAndGo: groups are made of what HTTP or file discovery tells, and
// change with it while queries run, none of which fails or is partial.
func TestDiscovery_ShardsComeAndGo(t *testing.T) {
	address := shardServers(t)
	var list atomic.Pointer[[]byte]
	inventory := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(*list.Load())
	}))
	t.Cleanup(inventory.Close)
	file := filepath.Join(t.TempDir(), "targets.json")
	for kind, sd := range map[string]struct {
		config string
		tell   func([]byte)
	}{
		"http": {fmt.Sprintf("http_sd_configs: [{url: '%s', refresh_interval: 50ms}]", inventory.URL), func(text []byte) { list.Store(&text) }},
		"file": {fmt.Sprintf("file_sd_configs: [{files: ['%s']}]", file), func(text []byte) {
			require.NoError(t, os.WriteFile(file+".new", text, 0o600))
			require.NoError(t, os.Rename(file+".new", file))
		}},
	} {
		t.Run(kind, func(t *testing.T) {
			sd.tell(targetList(address, "1", "2"))
			s, _ := startedServer(t, fmt.Sprintf(shardsConfig, sd.config))
			h := s.Handler()
			require.Equal(t, []string{"shards/1", "shards/2"}, groupNames(h))

			stop := make(chan struct{})
			var queries sync.WaitGroup
			defer queries.Wait()
			stopped := sync.OnceFunc(func() { close(stop) })
			defer stopped()
			for i, query := range []string{`sum by (shard) (foo)`, `foo{shard="1"}`, `sum(rate(foo[5m]))`} {
				queries.Go(func() {
					for n := 0; ; n++ {
						select {
						case <-stop:
							return
						default:
						}
						// Another time for each, so that none is shared or cached.
						w := get(h, "/api/v1/query?query="+url.QueryEscape(query)+fmt.Sprintf("&time=%d", 600+(n+i)%1800))
						if w.Code != http.StatusOK || w.Header().Get("X-Oneprom-Completeness") != "whole" || !strings.Contains(w.Body.String(), `"value"`) {
							t.Errorf("%s: %d %s %s", query, w.Code, w.Header(), w.Body)
							return
						}
					}
				})
			}
			for _, shards := range [][]string{{"1", "2", "3"}, {"1", "3"}, {"1", "4", "5"}} {
				sd.tell(targetList(address, shards...))
				var want []string
				for _, s := range shards {
					want = append(want, "shards/"+s)
				}
				require.Eventually(t, func() bool { return slices.Equal(want, groupNames(h)) }, time.Minute, 10*time.Millisecond)
				w := get(h, "/api/v1/query?query=count+by+(shard)+(foo)&time=900")
				for _, s := range shards {
					require.Contains(t, w.Body.String(), `{"shard":"`+s+`"},"value":[900,"2"]`)
				}
			}
			stopped()
			queries.Wait()

			explained := get(h, "/api/v1/explain?format=text&query="+url.QueryEscape(`sum(foo)`)+"&time=900").Body.String()
			for _, name := range []string{"shards/1", "shards/4", "shards/5"} {
				require.Contains(t, explained, name)
			}
			require.Contains(t, explained, "sum again")
			require.Equal(t, 3, strings.Count(explained, "remote: "))
			explained = get(h, "/api/v1/explain?format=text&query="+url.QueryEscape(`sum(foo{shard="4"})`)+"&time=900").Body.String()
			require.Contains(t, explained, "asked: shards/4\n")
			require.Equal(t, 1, strings.Count(explained, "remote: "))
		})
	}
}
