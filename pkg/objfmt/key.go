package objfmt

import "fmt"

// ObjectKey returns <namespace>/<hh>/<object id>[.<chunk>].
func ObjectKey(namespace string, id ObjectID, chunk uint32) string {
	if chunk == 0 {
		return fmt.Sprintf("%s/%s/%s", namespace, id.Fan(), id)
	}
	return fmt.Sprintf("%s/%s/%s.%d", namespace, id.Fan(), id, chunk)
}
