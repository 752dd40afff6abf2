package lint

import (
	"errors"
	"io/fs"
	"os"
	"strings"
)

// fileFields are the fields of the pulsar output that name a file, with the switch without which the file is not read.
var fileFields = []struct{ enabled, path []string }{
	{[]string{"auth", "token", "enabled"}, []string{"auth", "token", "file"}},
	{[]string{"auth", "oauth2", "enabled"}, []string{"auth", "oauth2", "private_key_file"}},
	{nil, []string{"tls", "root_cas_file"}},
}

// cause is an error without the path, which is told by itself.
func cause(err error) error {
	if p := new(fs.PathError); errors.As(err, &p) {
		return p.Err
	}
	return err
}

var fileRules = []Rule{
	{
		Name: "missing-file", Level: Error, Title: "a file of the `pulsar` output that is not there",
		Why:     "The output does not start without its token, its key or its authorities.",
		Instead: "Name a file that this process can read. Where configs are linted on another machine than they run on, allow this rule.",
		Bad:     badInput + "output: { pulsar: { url: \"pulsar+ssl://localhost:6651\", topic: t, auth: { token: { enabled: true, file: /no/such/token } } } }\n",
		check: func(c *Config, found report) {
			for _, o := range c.outputs() {
				for _, f := range fileFields {
					path, known := o.text("", f.path...)
					if path == "" || !known || f.enabled != nil && !o.enabled(f.enabled...) || strings.HasPrefix(path, "data:") {
						continue
					}
					file, err := os.Open(strings.TrimPrefix(path, "file://"))
					if err != nil {
						found(o.at(f.path...), join(o.path, "pulsar."+strings.Join(f.path, ".")), "%.200q cannot be opened: %v; name a file that can be read", path, cause(err))
						continue
					}
					_ = file.Close()
				}
			}
		},
	},
}
