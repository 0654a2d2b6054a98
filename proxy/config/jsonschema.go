package config

import _ "embed" // the schema

// JSONSchema is a JSON schema of the file, for editors. It is stricter than YAML is about
// what is true or false, and knows less than Parse: which keys exclude each other.
//
//go:generate go test -run ^TestJSONSchema_UpToDate$ -update
//go:embed oneprom.schema.json
var JSONSchema string
