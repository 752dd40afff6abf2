// Package examples holds the documentation to its word: every file of config_examples and every YAML block of the pages is
// linted, and every example is run with stand-ins for its services.
package examples
