package pulsartest

import (
	"fmt"
	"strconv"
	"strings"
)

const partitionInfix = "-partition-"

// topicName is a topic or one partition of a partitioned topic.
type topicName struct {
	base      string // persistent://tenant/namespace/topic
	partition int    // -1: the topic itself
}

// parseTopic accepts "t", "tenant/namespace/t" and "persistent://tenant/namespace/t", each with or without
// "-partition-N".
func parseTopic(name string) (topicName, error) {
	domain, rest, ok := strings.Cut(name, "://")
	if !ok {
		domain, rest = "persistent", name
	}
	if domain != "persistent" && domain != "non-persistent" {
		return topicName{}, fmt.Errorf("topic %q: the domain must be persistent or non-persistent", name)
	}
	parts := strings.Split(rest, "/")
	if len(parts) == 1 {
		parts = []string{"public", "default", parts[0]}
	}
	if len(parts) != 3 {
		return topicName{}, fmt.Errorf("topic %q: write topic, tenant/namespace/topic or persistent://tenant/namespace/topic", name)
	}
	for _, part := range parts {
		if part == "" {
			return topicName{}, fmt.Errorf("topic %q: tenant, namespace and topic must not be empty", name)
		}
	}
	t := topicName{partition: -1}
	local := parts[2]
	if i := strings.LastIndex(local, partitionInfix); i > 0 {
		digits := local[i+len(partitionInfix):]
		// Only the canonical form is a partition: "t-partition-01" is a topic of its own.
		if n, err := strconv.Atoi(digits); err == nil && n >= 0 && strconv.Itoa(n) == digits {
			local, t.partition = local[:i], n
		}
	}
	t.base = domain + "://" + parts[0] + "/" + parts[1] + "/" + local
	return t, nil
}

// String is the full name.
func (t topicName) String() string {
	if t.partition < 0 {
		return t.base
	}
	return t.base + partitionInfix + strconv.Itoa(t.partition)
}
