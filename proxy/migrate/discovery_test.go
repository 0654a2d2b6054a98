package migrate

import (
	"testing"

	_ "github.com/prometheus/prometheus/discovery/kubernetes" // kubernetes_sd_configs
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/config"
)

const discoveredGroup = `promxy:
  server_groups:
    - &common
      kubernetes_sd_configs: [{role: pod}]
      relabel_configs:
        - {source_labels: [__meta_kubernetes_pod_label_app], regex: prometheus, action: keep}
        - {source_labels: [__meta_kubernetes_pod_label_shard], target_label: shard}
        - {source_labels: [__meta_kubernetes_namespace], target_label: cluster}
      labels: {cluster: a}
      http_client:
        tls_config: {ca_file: ca.pem}
        sigv4: {region: eu-west-1}
    - <<: *common
      labels: {cluster: b}
`

// Targets that are discovered make groups by the labels that promxy adds to their series.
func TestFile_Discovery(t *testing.T) {
	got, err := File([]byte(discoveredGroup), "f")
	require.NoError(t, err)
	_, err = config.Parse(got, "got")
	require.NoError(t, err, "%s", got)
	text := string(got)
	require.Contains(t, text, "    kubernetes_sd_configs: [{role: pod}]\n    relabel_configs:\n      - {source_labels: [__meta_kubernetes_pod_label_app], regex: prometheus, action: keep}\n")
	require.Contains(t, text, "    group_by:\n      - shard\n    ")
	require.Contains(t, text, "  - name: b\n    # The name is made up")
}
