package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	upstream "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/file"
	"github.com/prometheus/prometheus/discovery/http"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	groupconfig "github.com/oneprom/oneprom/servergroup/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testdata = "../../testdata/config"

// Each bad file lists the errors that it must bring, after `# want:`.
func TestParse_BadFiles(t *testing.T) {
	files, err := filepath.Glob(testdata + "/bad-*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			_, want, ok := strings.Cut(string(data), "\n# want:\n")
			require.True(t, ok)
			want = strings.ReplaceAll("\n"+strings.TrimSuffix(want, "\n"), "\n# ", "\noneprom.yml:")

			cfg, err := Parse(data, "oneprom.yml")
			require.Nil(t, cfg)
			require.EqualError(t, err, want[1:])
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
}

// What cannot be in a file with comments of its own, or says less in one.
func TestParse_BadText(t *testing.T) {
	group := "\n  - {name: a, static_configs: [{targets: [a]}]}\n"
	good := "server_groups:" + group
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for i := 'b'; i < 'h'; i++ {
		bomb += strings.ReplaceAll("N: &N [*P,*P,*P,*P,*P,*P,*P,*P,*P,*P]\n", "N", string(i))
		bomb = strings.ReplaceAll(bomb, "P", string(i-1))
	}
	for _, tc := range []struct{ name, text, want string }{
		{"empty", "", "f:1: the file is empty: see config.example.yaml"},
		{"comment", "# nothing\n", "f:1: the file is empty: see config.example.yaml"},
		{"null", "---\n", "f:2: there are no server_groups: list the Prometheus servers to ask under `server_groups`"},
		{"only global", "global: {}\n", "f:1: there are no server_groups: list the Prometheus servers to ask under `server_groups`"},
		{"null list", "\nserver_groups:\n", "f:2: server_groups: empty: list the Prometheus servers to ask"},
		{"empty list", "\nserver_groups: []\n", "f:2: server_groups: empty: list the Prometheus servers to ask"},
		{"list", "- a\n", "f:1: expected a mapping of keys to values, found a list"},
		{"scalar", "hunter2", "f:1: expected a mapping of keys to values, found a string"},
		{"mapping for list", "server_groups: {name: a}", "f:1: server_groups: expected a list of mappings, found a mapping"},
		{"copies of itself", "server_groups:\n  - name: a\n    copies_of: [a]\n    static_configs: [{targets: ['a:1']}]\n", "f:3: server_groups[0].copies_of[0]: a group cannot hold copies of itself: name the groups that its data comes from"},
		{"copies of nobody", "server_groups:\n  - name: a\n    copies_of: [b]\n    static_configs: [{targets: ['a:1']}]\n", "f:3: server_groups[0].copies_of[0]: there is no server group \"b\": name the groups that the data comes from"},
		{"copies of copies", "server_groups:\n  - {name: a, copies_of: [b], static_configs: [{targets: ['a:1']}]}\n  - {name: b, copies_of: [c], static_configs: [{targets: ['b:1']}]}\n  - {name: c, static_configs: [{targets: ['c:1']}]}\n", "f:2: server_groups[0].copies_of[0]: \"b\" holds copies itself: name the groups that it has them of"},
		{"copies twice", "server_groups:\n  - {name: a, copies_of: [b, b], static_configs: [{targets: ['a:1']}]}\n  - {name: b, static_configs: [{targets: ['b:1']}]}\n", "f:2: server_groups[0].copies_of[1]: \"b\" is there twice: remove one"},
		{"two documents", good + "---\n" + good, "f:3: a second document begins here: one file holds one"},
		{"broken second document", good + "---\na: [\n", "f:4: not YAML: did not find expected node content"},
		{"unclosed list", good + "  - name: [a\n  - name: b\n", "f:3: not YAML: did not find expected ',' or ']'"},
		{"tab", "server_groups:\n\t- name: a\n", "f:2: not YAML: found character that cannot start any token"},
		{"colon in value", good + "global: a: b\n", "f:3: not YAML: mapping values are not allowed in this context"},
		{"bad indentation", good + "   name: a\n", "f:3: not YAML: did not find expected '-' indicator"},
		{"not UTF-8", "a: \xff", "f:1: not YAML: invalid leading UTF-8 octet"},
		{"password with a star", "# head\nserver_groups:\n  - basic_auth:\n      password: *hunter2\n    name: a\n", "f:4: not YAML: an alias (*…) without its anchor (&…): quote a value that begins with a star"},
		{"alias of itself", "server_groups: &a [*a]", "f:1: YAML aliases expand too far or are recursive"},
		{"alias of itself, merged", "server_groups:\n- &a\n  <<: *a", "f:3: YAML aliases expand too far or are recursive"},
		{"alias bomb", bomb, "f:6: YAML aliases expand too far or are recursive"},
		{"traces to nowhere", good + "tracing: {insecure: true}\n", "f:3: tracing: tracing endpoint must be set"},
		{"too many traces", good + "tracing:\n  endpoint: a:1\n  sampling_fraction: 10\n", "f:5: tracing.sampling_fraction: must be from 0 (none) to 1 (all)"},
		{"a header of the trace protocol", good + "tracing: {endpoint: a, headers: {Authorization: hunter2}}\n", "f:3: tracing: custom authorization header configuration is not yet supported"},
		{"no cache", good + "cache: {secret_file: a}\n", "f:3: cache: names no servers: add `memcached: {addresses: ['host:11211']}` or `redis: {addresses: ['host:6379']}`, or remove the section"},
		{"no cache below", good + "cache:\n  redis:\n", "f:4: cache: names no servers: add `memcached: {addresses: ['host:11211']}` or `redis: {addresses: ['host:6379']}`, or remove the section"},
		{"two passwords", good + "cache:\n  redis: {addresses: ['a:1'], password: hunter2, password_file: a}\n", "f:4: cache.redis.password_file: there is a password, too: remove one of them"},
		{"too big", strings.Repeat("#", maxSize+1), "f: more than 16 MiB"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse([]byte(tc.text), "f")
			require.EqualError(t, err, tc.want)
		})
	}
	_, err := Parse([]byte(good), "f")
	require.NoError(t, err)
}

func TestLoad_Good(t *testing.T) {
	path := filepath.Join(testdata, "good.yaml")
	cfg, err := Load(path)
	require.NoError(t, err)

	g := cfg.Global
	require.Equal(t, model.Duration(30*time.Second), g.EvaluationInterval)
	require.Equal(t, `{shard="1", source="oneprom"}`, g.ExternalLabels.String())
	require.Equal(t, groupconfig.PartialError, g.PartialResponse)
	require.Equal(t, testdata+"/queries.log", g.QueryLogFile)
	require.Equal(t, model.Duration(2*time.Second), g.QueryLogMinDuration)

	require.Equal(t, upstream.TracingClientHTTP, cfg.Tracing.ClientType)
	require.Equal(t, 0.25, cfg.Tracing.SamplingFraction)
	require.Equal(t, map[string]string{"X-Tenant": "hunter-tracing"}, cfg.Tracing.Headers)
	require.Equal(t, testdata+"/ca.pem", cfg.Tracing.TLSConfig.CAFile)

	require.Equal(t, testdata+"/secret", cfg.Cache.SecretFile)
	require.Equal(t, testdata+"/ca.pem", cfg.Cache.Redis.TLSConfig.CAFile)
	require.Equal(t, model.Duration(50*time.Millisecond), cfg.Cache.Redis.Timeout)
	require.Equal(t, DefaultCacheServers.WriteTimeout, cfg.Cache.Redis.WriteTimeout)
	require.Equal(t, 3, cfg.Cache.Redis.DB)

	require.Equal(t, []string{testdata + "/rules/*.yml", "/etc/oneprom/rules.yml"}, cfg.RuleFiles)
	require.Equal(t, model.Duration(10*time.Second), g.RuleQueryOffset)
	require.Equal(t, groupconfig.PartialWarn, cfg.Rules.PartialResponseOf("dashboards"))
	require.Equal(t, groupconfig.PartialError, cfg.Rules.PartialResponseOf("others"))
	require.True(t, cfg.Rules.OwnAlerts)
	am := cfg.Alerting.AlertmanagerConfigs[0]
	require.Equal(t, []string{testdata + "/am.json"}, am.ServiceDiscoveryConfigs[0].(*file.SDConfig).Files)
	require.Equal(t, testdata+"/ca.pem", am.HTTPClientConfig.TLSConfig.CAFile)
	require.Equal(t, upstream.DefaultQueueConfig.MaxShards, cfg.RemoteWrite[0].QueueConfig.MaxShards)
	require.Equal(t, testdata+"/ca.pem", cfg.RemoteWrite[0].HTTPClientConfig.TLSConfig.CAFile)
	require.False(t, cfg.Upstream().RemoteWriteConfigs[0].MetadataConfig.Send)

	require.Len(t, cfg.ServerGroups, 5)
	eu, us, archive := cfg.ServerGroups[0], cfg.ServerGroups[1], cfg.ServerGroups[2]
	require.Equal(t, map[string]string{"region": "us", "dotted.name": "yes"}, us.Labels)
	require.Equal(t, groupconfig.RemoteReadAuto, us.RemoteRead)
	require.Equal(t, model.Duration(30*time.Second), us.Timeout)
	require.True(t, us.HTTPClientConfig.FollowRedirects)
	require.False(t, eu.HTTPClientConfig.FollowRedirects)
	require.EqualValues(t, "hunter-bearer", us.HTTPClientConfig.Authorization.Credentials)
	require.EqualValues(t, "hunter-header", eu.Headers["X-Tenant"])
	require.Equal(t, time.Date(2026, 1, 2, 13, 4, 5, 0, time.UTC), archive.TimeRange.Start.Time)
	require.Equal(t, int64(1900000000500), archive.TimeRange.End.UnixMilli())

	require.Equal(t, []QueryRule{
		{Name: "scans", SelectorWithoutMatchers: true, MaxRange: model.Duration(31 * 24 * time.Hour), Action: ActionRefuse, Reason: "name what you look for"},
		{
			Name: "wall", Regex: `.*by \(pod\).*`, MinStep: model.Duration(15 * time.Second), UserAgent: "Grafana/.*",
			Header: map[string]string{"x-dashboard-uid": "a|b", "X-Panel-Id": ""}, MaxConcurrency: 2,
		},
	}, cfg.QueryRules)

	// Relative paths are relative to the file.
	require.Equal(t, testdata+"/ca.pem", us.HTTPClientConfig.TLSConfig.CAFile)
	require.Equal(t, testdata+"/jwt.pem", archive.HTTPClientConfig.OAuth2.ClientCertificateKeyFile)
	sd := us.ServiceDiscoveryConfigs[0].(*file.SDConfig)
	require.Equal(t, []string{testdata + "/us-*.json", "/etc/oneprom/us.yml"}, sd.Files)
}

func TestConfig_StringParsesAgainWithoutSecrets(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(testdata, "good.yaml"))
	require.NoError(t, err)
	secrets := regexp.MustCompile(`hunter-[a-z0-9-]+`).FindAllString(string(data), -1)
	require.Len(t, secrets, 20)

	cfg, err := Parse(data, "good.yaml")
	require.NoError(t, err)
	text := cfg.String()
	for _, secret := range secrets {
		require.NotContains(t, text, secret)
	}
	require.Contains(t, text, "https://user:xxxxx@receiver/api/v1/write")
	require.Regexp(t, `nocache:\n *- <secret>`, text, "parameters may hold keys")
	again, err := Parse([]byte(text), "string")
	require.NoError(t, err)
	require.Equal(t, text, again.String())

	// Apart from the secrets nothing is lost.
	again.Tracing.Headers = cfg.Tracing.Headers
	again.Alerting.AlertmanagerConfigs[0].HTTPClientConfig = cfg.Alerting.AlertmanagerConfigs[0].HTTPClientConfig
	again.RemoteWrite[0].URL, again.RemoteWrite[0].Headers = cfg.RemoteWrite[0].URL, cfg.RemoteWrite[0].Headers
	again.RemoteWrite[0].SigV4Config.SecretKey = cfg.RemoteWrite[0].SigV4Config.SecretKey
	again.Cache.Redis.Password = cfg.Cache.Redis.Password
	again.ServerGroups[0].HTTPClientConfig, again.ServerGroups[0].Headers = cfg.ServerGroups[0].HTTPClientConfig, cfg.ServerGroups[0].Headers
	for i := 1; i < len(cfg.ServerGroups); i++ {
		again.ServerGroups[i].HTTPClientConfig = cfg.ServerGroups[i].HTTPClientConfig
		again.ServerGroups[i].QueryParams = cfg.ServerGroups[i].QueryParams
	}
	shards, shardsAgain := cfg.ServerGroups[4].ServiceDiscoveryConfigs, again.ServerGroups[4].ServiceDiscoveryConfigs
	require.Equal(t, "https://inventory:xxxxx@cmdb/targets?<secret>", shardsAgain[0].(*http.SDConfig).URL)
	shardsAgain[0] = shards[0]
	again.places = cfg.places
	require.Equal(t, cfg, again)
}

func TestParse_Defaults(t *testing.T) {
	cfg, err := Parse([]byte("global:\nserver_groups: [{name: a, timeout: , static_configs: [{targets: [a]}]}]"), "f")
	require.NoError(t, err)
	require.Equal(t, DefaultGlobal, cfg.Global)
	require.Equal(t, DefaultRules, cfg.Rules)
	require.Equal(t, groupconfig.DefaultGroup.Timeout, cfg.ServerGroups[0].Timeout)
	require.Nil(t, cfg.Cache)
	require.Nil(t, cfg.Cache.Servers())
}

func TestParse_CacheDefaults(t *testing.T) {
	cfg, err := Parse([]byte("server_groups: [{name: a, static_configs: [{targets: [a]}]}]\ncache: {memcached: {addresses: ['dns+m:1', 'dnssrv+_m._tcp.m', '[::1]:1']}}"), "f")
	require.NoError(t, err)
	want := DefaultCacheServers
	want.Addresses = []string{"dns+m:1", "dnssrv+_m._tcp.m", "[::1]:1"}
	require.Equal(t, &Cache{Memcached: &CacheMemcached{want}}, cfg.Cache)
	require.Equal(t, &want, cfg.Cache.Servers())
}

func TestLoad_Missing(t *testing.T) {
	_, err := Load(filepath.Join(testdata, "none.yaml"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// Environment variables are not expanded.
func TestParse_NoExpansion(t *testing.T) {
	t.Setenv("REGION", "eu")
	cfg, err := Parse([]byte("server_groups: [{name: a, labels: {region: $REGION}, static_configs: [{targets: [a]}]}]"), "f")
	require.NoError(t, err)
	require.Equal(t, "$REGION", cfg.ServerGroups[0].Labels["region"])
}

// A file of another program is told as what it is.
func TestParse_FilesOfOthers(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		_, err := Parse([]byte(text), "f")
		require.EqualError(t, err, want)
	}
	f("global: {scrape_interval: 1s}\npromxy:\n  server_groups: []\n", "f:2: promxy: this is a configuration of promxy: `oneprom migrate f` writes one of oneprom")
	f("rule_files: []\nscrape_configs: []\n", "f:2: scrape_configs: this is a configuration of Prometheus: oneprom does not scrape, but asks the servers that are listed under `server_groups`; `oneprom migrate f` writes a file to begin with")
	f("target: all\nblocks_storage: {}\n", "f:2: blocks_storage: this is a configuration of Mimir or Cortex: list its query frontend under `server_groups`")
	f("endpoints: []\n", "f:1: endpoints: this is a list of endpoints of Thanos: list the Prometheus servers behind its sidecars, or a Thanos Query, under `server_groups`")
	f("groups: []\n", "f:1: groups: this is a file of rules: `oneprom check rules f` checks it, and `rule_files` of a configuration names it")
	f("route: {}\nreceivers: []\n", "f:2: receivers: this is a configuration of Alertmanager: that of oneprom begins with `server_groups`: see config.example.yaml")
	f("basic_auth_users: {a: b}\n", "f:1: basic_auth_users: this is a web configuration: it is for --web.config.file")
	f("- targets: [a]\n", "f:1: this is a list of targets, not a configuration: name the file in `file_sd_configs` of a server group")
}

func TestKnows(t *testing.T) {
	require.True(t, Knows("server_groups"))
	require.True(t, Knows("server_groups", "tls_config", "ca_file"))
	require.True(t, Knows("server_groups", "labels", "anything"))
	require.True(t, Knows("server_groups", "file_sd_configs", "files"))
	require.False(t, Knows("server_groups", "anti_affinity"))
	require.False(t, Knows("server_groups", "name", "below"))
}

// config.example.yaml is the reference for users: it loads, and it has every key
// and no other.
func TestExample(t *testing.T) {
	const path = "../../config.example.yaml"
	cfg, err := Load(path)
	require.NoError(t, err)
	require.Len(t, cfg.ServerGroups, 4)
	require.Len(t, cfg.QueryRules, 3)

	data, err := os.ReadFile(path)
	require.NoError(t, err)
	// What is below the other service discoveries is Prometheus' own, and documented there.
	discoveries := regexp.MustCompile(`(?m)(\w+_sd_configs: )\[.*$`)
	data = discoveries.ReplaceAll(data, []byte("$1"))
	var written []string
	for _, m := range regexp.MustCompile("(?m)(?:^[ #-]*|or `|[{] *)([a-z0-9_]+)(?::|`)").FindAllStringSubmatch(string(data), -1) {
		written = append(written, m[1])
	}
	keys := allKeys(reflect.TypeFor[Config]())
	for _, key := range keys {
		require.Contains(t, written, key)
	}
	// Names that are the user's: labels, parameters, claims, groups of rules.
	keys = append(keys, "source", "replica", "region", "extra_label", "resource", "scope", "dashboards", "team")
	// Which only the binary has.
	keys = append(keys, "dns_sd_configs", "kubernetes_sd_configs", "consul_sd_configs")
	for _, key := range written {
		require.Contains(t, keys, key)
	}
}

func allKeys(typ reflect.Type) []string {
	typ = shape(typ)
	if typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map {
		return allKeys(typ.Elem())
	}
	var keys []string
	if _, scalar := scalars[typ]; scalar {
		return nil
	}
	for _, f := range fieldsOf(typ) {
		keys = append(keys, f.key)
		if strings.HasSuffix(f.key, discoverySuffix) && f.key != "file_sd_configs" {
			continue
		}
		keys = append(keys, allKeys(f.typ)...)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// Keys of Prometheus and promxy that became keys of oneprom need no hint.
func TestForeignKeysAreUnknown(t *testing.T) {
	for form, keys := range foreign {
		for key := range keys {
			require.NotContains(t, keysOf(form), key)
		}
	}
}

// FuzzParse: nothing makes Parse panic, and what it accepts is written so that it
// is read again as the same.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob(testdata + "/*.yaml")
	require.NoError(f, err)
	for _, path := range append(files, "../../config.example.yaml") {
		data, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(data)
	}
	f.Add([]byte("server_groups: [&a {name: a, static_configs: [{targets: [a]}]}, {<<: [*a], name: !!binary YQ==}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &checker{file: "f"}
		cfg := c.read(data) // not Parse, which recovers
		if err := c.err(); err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		require.NotNil(t, cfg)
		text := cfg.String()
		again, err := Parse([]byte(text), "again")
		require.NoError(t, err, text)
		require.Equal(t, text, again.String())
	})
}

// What types do not hide is hidden everywhere.
func TestConfig_StringHidesSecretsOfAlertmanagers(t *testing.T) {
	cfg, err := Parse([]byte(`
server_groups:
  - name: a
    static_configs: [{targets: [a], labels: {__param_key: hunter2}}]
    relabel_configs: [{target_label: __param_token, replacement: hunter2}, {source_labels: [a], regex: 'http://(?P<x>.)', target_label: b}]
alerting: {alertmanagers: [{http_sd_configs: [{url: 'http://u:hunter2@cmdb/?key=hunter2'}]}]}
remote_write: [{url: 'http://u:hunter2@w/?key=hunter2', proxy_url: 'http://hunter2@proxy'}, {url: 'http://a', oauth2: {client_id: a, client_secret: hunter2, token_url: 'http://t/?key=hunter2', endpoint_params: {key: hunter2}}}]
`), "f")
	require.NoError(t, err)
	text := cfg.String()
	require.NotContains(t, text, "hunter2")
	for _, shown := range []string{"http://u:xxxxx@cmdb/?<secret>", "http://u:xxxxx@w/?<secret>", "http://t/?<secret>", "http://xxxxx@proxy", "http://(?P<x>.)"} {
		require.Contains(t, text, shown)
	}
	_, err = Parse([]byte(text), "string")
	require.NoError(t, err)
}
