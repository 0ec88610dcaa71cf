"""Object stores: S3, Google Cloud Storage, Azure; and folders kept in them, file by file, by digest."""

from neuronmap.objects.bucket import Bucket
from neuronmap.objects.folders import Listing, RemoteFolders
from neuronmap.objects.protocol import BlobStore, StoredObject
from neuronmap.objects.providers import SCHEMES
from neuronmap.objects.sending import Sending

__all__ = ["SCHEMES", "BlobStore", "Bucket", "Listing", "RemoteFolders", "Sending", "StoredObject"]
