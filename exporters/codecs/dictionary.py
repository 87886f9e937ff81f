"""The preset dictionary of version 1: text that manifests share, so that small files need not repeat it.

Deflate refers back to it as if it stood before the manifest. It is part of the format and never changes; a new version
of ``packed`` may bring a new one. What is most likely to match stands last, where references are shortest.
"""

from __future__ import annotations

DICTIONARY = (
    b'"kind":"factory""kind":"onnx""sha256":"float16bfloat16float64"name":"tokens","shape":[128],"dtype":"int64"'
    b'"stored":"float16""output_axis":1"alias_of":""max_abs_error":"values":"fp16"'
    b"embeddings.weightencoder.layers.0.self_attn.in_proj_weightin_proj_biasout_proj.weightlinear1.weightlinear2.weight"
    b"classifier.features.downsample.0.weightlayer4.2.conv3.weightlayer1.0.conv1.weight"
    b"[2048,512,1,1][512,512,3,3][256,256,3,3][128,128,3,3][64,64,3,3][64,3,3,3]"
    b'{"model":{"adaptations":["conv1 takes 1 channel instead of 3.","fc1 takes 64 features instead of 784."],"inputs":'
    b'"options":{"classes":1000,"input_shape":[3,224,224]},"text":"resnet-50"[3,32,32][1,8,8]'
    b'"structure":"channel","structure":"2:4","positions":["n-of-m","bitmap-deflate","channels","none","all"'
    b'"parametrisation":"identity","parametrisation":"selected","seed":{"bound":'
    b'"seeding":["philox4x32-10","signed-constant",0,"selected"],"values":["seeded",0]'
    b'{"dtype":"int64","name":"bn1.num_batches_tracked","role":"buffer","shape":[],"values":["deflate",5]},'
    b'{"name":"bn1.running_var","role":"buffer","shape":[64],"values":["floats",56]},'
    b'{"name":"bn1.running_mean","role":"buffer","shape":[64],"values":["floats",59]},'
    b'{"name":"bn1.weight","shape":[64],"values":["deflate",9]},"positions":["bitmap",'
    b'{"model":{"inputs":[{"dtype":"float32","name":"input","shape":[1,28,28]}],"kind":"zoo",'
    b'"options":{"classes":10,"input_shape":[1,28,28]},"text":"lenet-300-100"},"recipe":"",'
    b'"seeding":["keyed-product","uniform",0,"frozen"],"tensors":['
    b'{"name":"conv1.bias","shape":[20],"values":["raw",80]},'
    b'{"name":"fc1.bias","shape":[300],"values":["floats",900]},'
    b'{"kept":100,"masked":true,"name":"fc1.weight","positions":["gaps",100],"role":"prunable","shape":[300,784],'
    b'"values":["floats",300]}],"training":{"mask_search_flops":0,"trained_parameters":266610,"training_flops":'
)
