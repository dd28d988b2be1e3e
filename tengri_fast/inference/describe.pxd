from tengri_fast.inference.capi cimport tf_matrix, tf_network, tf_node_desc


cdef class Description:
    cdef tf_network network
    cdef tf_node_desc *nodes
    cdef list kept
    cdef int fill(self, object source, int count) except -1
    cdef int fill_node(self, tf_node_desc *node, int index, object source) except -1
    cdef int matrix(self, tf_matrix *target, object source, str attribute) except -1
    cdef const float *floats(self, object array) except? NULL
