package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/discovery"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/config"
)

// discoveries has the least that each service discovery of Prometheus needs.
var discoveries = map[string]string{
	"aws":          "{role: ec2, region: eu-west-1}",
	"azure":        "{subscription_id: s, tenant_id: t, client_id: c, client_secret: hunter2}",
	"consul":       "{server: 'c:8500', token: hunter2}",
	"digitalocean": "{port: 80}",
	"dns":          "{names: [a.example.org], type: A, port: 80}",
	"docker":       "{host: 'unix:///var/run/docker.sock'}",
	"dockerswarm":  "{host: 'unix:///var/run/docker.sock', role: nodes}",
	"ec2":          "{region: eu-west-1, access_key: a, secret_key: hunter2}",
	"ecs":          "{region: eu-west-1}",
	"elasticache":  "{region: eu-west-1}",
	"eureka":       "{server: 'http://e:80/v2'}",
	"file":         "{files: [a.yml]}",
	"gce":          "{project: p, zone: z}",
	"hetzner":      "{role: hcloud}",
	"http":         "{url: 'http://u:hunter2@h/'}",
	"ionos":        "{datacenter_id: d, basic_auth: {username: u, password: hunter2}}",
	"kubernetes":   "{role: pod, namespaces: {names: [a]}, selectors: [{role: pod, label: a=b}]}",
	"kuma":         "{server: 'http://k:5676'}",
	"lightsail":    "{region: eu-west-1}",
	"linode":       "{authorization: {credentials: hunter2}}",
	"marathon":     "{servers: ['http://m:80'], auth_token: hunter2}",
	"msk":          "{region: eu-west-1}",
	"nerve":        "{servers: [z], paths: [/a]}",
	"nomad":        "{server: 'http://n:4646'}",
	"oci":          "{region: eu, tenancy: t, user: u, fingerprint: f, key_file: k, key_passphrase: hunter2}",
	"openstack":    "{role: instance, region: r, password: hunter2}",
	"outscale":     "{region: eu, access_key: a, secret_key: hunter2}",
	"ovhcloud":     "{service: vps, endpoint: ovh-eu, application_key: a, application_secret: hunter2, consumer_key: hunter2}",
	"puppetdb":     "{url: 'http://p:80', query: 'resources{}'}",
	"rds":          "{region: eu-west-1}",
	"scaleway":     "{role: instance, project_id: 00000000-0000-0000-0000-000000000000, access_key: SCW0123456789ABCDEFG, secret_key_file: f}",
	"serverset":    "{servers: [z], paths: [/a]}",
	"stackit":      "{project: p, region: eu01, service_account_key: hunter2}",
	"triton":       "{account: a, dns_suffix: d, endpoint: e}",
	"uyuni":        "{server: 'http://u', username: u, password: hunter2}",
	"vultr":        "{authorization: {credentials: hunter2}}",
}

// TestDiscoveries: each service discovery that is linked is read, strictly, and shown
// without secrets. It holds for binaries that are built with fewer, too.
func TestDiscoveries(t *testing.T) {
	for _, kind := range discovery.RegisteredConfigNames() {
		t.Run(kind, func(t *testing.T) {
			if kind == "static" {
				return
			}
			require.Contains(t, discoveries, kind)
			text := fmt.Sprintf("server_groups:\n- name: a\n  %s_sd_configs:\n  - %s\n", kind, discoveries[kind])
			cfg, err := config.Parse([]byte(text), "f")
			require.NoError(t, err)
			require.Len(t, cfg.ServerGroups[0].ServiceDiscoveryConfigs, 1)
			shown := cfg.String()
			require.NotContains(t, shown, "hunter2")
			again, err := config.Parse([]byte(shown), "shown")
			require.NoError(t, err, shown)
			require.Equal(t, shown, again.String())

			_, err = config.Parse([]byte(strings.Replace(text, "- {", "- {frobnicate: hunter2, ", 1)), "f")
			require.ErrorContains(t, err, fmt.Sprintf("f:4: server_groups[0].%s_sd_configs[0].frobnicate: unknown key", kind))
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
}
