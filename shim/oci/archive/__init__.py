"""Images as files: read from archives and layouts, and written.

documents     the JSON documents of an OCI image, and the architectures by both of their names
files         what holds an image's files: a tar, or a directory
compression   gzip and zstd, told by their first bytes
entries       a tar read forwards once, whatever is in it
tree          the files of all layers, each over those below it
stored        an image in an archive or a layout: its configuration and layers, digests verified
unpack        the few files of a tree that a question is about, on disk
packing       which file of the node becomes which file of an image
writer        an archive of an image, the same bytes for the same files
"""
